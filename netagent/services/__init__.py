"""The use cases, one file per noun, each to be read from top to bottom. They decide through the pure packages, write
their intention to the journal, change the kernel through the engine, and tell the store.
"""
