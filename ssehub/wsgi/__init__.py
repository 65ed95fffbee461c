"""The WSGI side of a hub: requests, responses, and the sockets of clients."""
