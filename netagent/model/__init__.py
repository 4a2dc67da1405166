"""What netagent talks about: frozen values and the parsers that make them from untrusted text.

Everything else in the code receives these values already checked. Nothing here reads a clock, a socket or a file.
"""
