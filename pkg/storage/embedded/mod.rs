//! The backend that needs no server.
