"""The agent put together: configuration, wiring, start and stop. The only package that names concrete classes."""
