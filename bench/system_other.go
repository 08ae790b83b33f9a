//go:build !linux

package main

import (
	"errors"
	"os"
	"time"
)

var errNotLinux = errors.New("the load generator knows only Linux")

func raiseFiles() (uint64, error) { return 0, errNotLinux }

func resident(int) (uint64, error) { return 0, errNotLinux }

func processorTime(int) (time.Duration, error) { return 0, errNotLinux }

func load() string { return "unknown" }

func syncData(*os.File) error { return errNotLinux }

func allocated(string) (int64, error) { return 0, errNotLinux }

func dropCache(string) error { return errNotLinux }
