"""HTTP/1.1 (RFC 9112): bytes of a connection to requests, and responses to bytes."""
