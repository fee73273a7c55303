//! The backend for MongoDB replica sets.
