package cli

var lockCommands []*command
