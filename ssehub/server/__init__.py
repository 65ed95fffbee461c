"""The core of a hub: connections, and the delivery of messages to them. It does not use HTTP or sockets."""
