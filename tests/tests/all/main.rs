//! All black-box tests, one binary. Every scenario about sessions runs on both engines.

mod session;
