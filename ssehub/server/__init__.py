"""A hub's core: connections, and how messages reach them. It knows nothing of HTTP and sockets."""
