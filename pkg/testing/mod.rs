//! Conformance suites that every implementation of a contract must pass.

pub mod bus;
