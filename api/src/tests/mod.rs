//! Black-box tests of the router, in process.
