// Package errno gives failures the form in which Ceph's command-line tools
// show them, and the exit code with which those tools end. It is standard
// library only, so that the static launcher can link it.
package errno

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// Text is an error number as Ceph prints it: "(2) No such file or directory".
func Text(code syscall.Errno) string {
	// Go's table is glibc's with the first letter made small, and keeps
	// "errno 524" where glibc says "Unknown error 524".
	text := code.Error()
	if rest, ok := strings.CutPrefix(text, "errno "); ok {
		text = "Unknown error " + rest
	} else {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return "(" + strconv.Itoa(int(code)) + ") " + text
}

// Error is one line on stderr and the exit code that goes with it.
type Error struct {
	Code syscall.Errno // also the exit code
	Line string        // without a newline
	Bare bool          // the line is printed without "rbd: " before it
	Err  error         // what it came from, may be nil
}

func (e *Error) Error() string { return e.Line }

// Unwrap gives what the error came from, or its number.
func (e *Error) Unwrap() error {
	if e.Err != nil {
		return e.Err
	}
	return e.Code
}

// Errorf makes an Error from a number and a line.
func Errorf(code syscall.Errno, format string, args ...any) *Error {
	return &Error{Code: code, Line: fmt.Sprintf(format, args...)}
}

// Wrap makes an Error whose line is text, a colon and the number in err:
// "listing images failed: (2) No such file or directory". A nil err stays nil.
func Wrap(err error, text string) error {
	if err == nil {
		return nil
	}
	code := Code(err)
	return &Error{Code: code, Line: text + ": " + Text(code), Err: err}
}

// Code finds the error number in err: an Error's, a system call's, or that of
// a librados or librbd call, which come as negative numbers behind an
// ErrorCode method. An error without any number is an I/O error.
func Code(err error) syscall.Errno {
	var own *Error
	if errors.As(err, &own) && own.Code != 0 {
		return own.Code
	}
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	var ceph interface{ ErrorCode() int }
	if errors.As(err, &ceph) {
		return syscall.Errno(max(ceph.ErrorCode(), -ceph.ErrorCode()))
	}
	return syscall.EIO
}
