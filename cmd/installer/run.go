package main

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/opt-rbd/opt-rbd/internal/node"
)

// readyFile is where run says that the node is in order and ready reads it: a
// folder that a pod's containers share, in memory.
const readyFile = "/run/opt-rbd/ready"

// runCommand is the installer as a DaemonSet has it.
func runCommand(flags []cli.Flag) *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "install, stay, and repair what differs later; ended by SIGTERM, which takes nothing back",
		ArgsUsage: " ",
		Flags: append([]cli.Flag{
			&cli.DurationFlag{Name: "interval", Value: 10 * time.Minute, Usage: "longest time between two looks at the node"},
			&cli.DurationFlag{Name: "restart-jitter", Usage: "a restart of kubelet comes up to this much later, by chance"},
			&cli.DurationFlag{Name: "restart-interval", Value: 15 * time.Minute, Usage: "shortest time between two restarts of kubelet"},
			&cli.StringFlag{Name: "ready-file", Value: readyFile, Usage: "file for installer ready; empty for none"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "text or json, on standard error"},
		}, flags...),
		Action: func(c *cli.Context) error {
			o, err := options(c)
			if err != nil {
				return err
			}
			if c.Duration("interval") <= 0 {
				return fmt.Errorf("no interval %s: give one such as 10m", c.Duration("interval"))
			}
			log, err := logger(c)
			if err != nil {
				return err
			}
			return node.Keep(c.Context, o, node.KeepOptions{
				Interval:        c.Duration("interval"),
				RestartJitter:   c.Duration("restart-jitter"),
				RestartInterval: c.Duration("restart-interval"),
				Ready:           c.String("ready-file"),
				Log:             log,
			})
		},
	}
}

func logger(c *cli.Context) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if c.Bool("quiet") {
		o.Level = slog.LevelError
	}
	switch format := c.String("log-format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	default:
		return nil, fmt.Errorf("no log format %q: use text or json", format)
	}
}

var readyCommand = &cli.Command{
	Name:      "ready",
	Usage:     "exit code 0 while installer run finds the node in order, for a probe",
	ArgsUsage: " ",
	Flags: []cli.Flag{
		&cli.StringFlag{Name: "ready-file", Value: readyFile, Usage: "file that installer run writes"},
	},
	Action: func(c *cli.Context) error {
		if err := noArguments(c); err != nil {
			return err
		}
		return node.CheckReady(c.String("ready-file"))
	},
}
