package cli

import (
	"errors"

	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// hints says what to do about an error, in no, one or more lines.
func hints(c *call, err error) []string {
	var kernel *krbd.Error
	if errors.As(err, &kernel) && kernel.Hint != "" {
		return []string{kernel.Hint}
	}
	return nil
}
