"""How netagent decides: what the kernel should hold, what it holds, and the operations between the two.

Pure: plain data in, plain data out. No sockets, files, clocks, randomness or asyncio in this package.
"""
