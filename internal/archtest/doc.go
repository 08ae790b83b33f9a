// Package archtest tests the repository as a whole: which package imports which,
// what the pure packages stay away from, and that a change of the public API is
// seen. It has no code besides tests.
package archtest
