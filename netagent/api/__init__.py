"""The front doors: gRPC for programs and the command line, and CNI for container runtimes.

They turn what arrives into requests, ask the services, and turn the answer or the error back. They decide nothing.
"""
