"""Other people's memory, and our own: the cluster store, this host's journal, and the records in both."""
