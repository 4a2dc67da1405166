"""The engine: from the snapshot to the kernel, by one path for one endpoint and for everything."""
