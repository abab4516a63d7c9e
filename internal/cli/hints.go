package cli

// hints says what to do about an error, in no, one or more lines.
func hints(c *call, err error) []string {
	return nil
}
