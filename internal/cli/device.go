package cli

var deviceCommands []*command
