"""The command line: one file per noun. It asks the agent and prints; it decides nothing.

Starting is to cost little: click is imported always, a noun's file with its command, gRPC with the first call.
"""
