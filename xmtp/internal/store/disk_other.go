//go:build !windows

package store

var fullErrors, readOnlyErrors []error
