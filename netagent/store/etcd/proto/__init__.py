"""Generated from proto/netagent/etcd by scripts/generate.py; not edited by hand."""
