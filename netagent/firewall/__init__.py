"""What the table ``inet netagent`` says: the rules are constant, everything that varies is an element of a set.

So a published port, a network or an endpoint costs one element to add whatever their number, and a packet costs one
look-up. An accept here only ends our own chains: it never overrules a drop in somebody else's table.
"""
