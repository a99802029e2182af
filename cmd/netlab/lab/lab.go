// Package lab is the kit for netboot tests: a network of its own, disks to boot
// from, emulated machines that boot from them, and the appliance that serves
// them. Everything lives in network namespaces and one temporary folder, and
// everything is gone after Close, also after a run that crashed: the next one
// clears up.
//
// It may know every part of the appliance's outside (command line, API, boot
// URLs, events' wording) and nothing of its inside: what it starts is the
// program that users start, and what boots is firmware that users have.
package lab

import (
	"context"
	"errors"
	"os"
)

// Lab is one network with its machines.
type Lab struct {
	Dir        string // temporary; short, since it holds unix sockets
	Network    *Network
	machines   []*Running
	appliances []*Appliance

	workbenches map[string]*Kernel // by their tools
}

// New makes an empty lab and clears up what crashed runs left.
func New(ctx context.Context) (*Lab, error) {
	if err := Usable(); err != nil {
		return nil, err
	}
	if _, err := RemoveAbandoned(ctx); err != nil {
		return nil, err
	}
	network, err := NewNetwork(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := tempDir()
	if err != nil {
		return nil, errors.Join(err, network.Close())
	}
	return &Lab{Dir: dir, Network: network, workbenches: map[string]*Kernel{}}, nil
}

// tempDir makes the lab's folder, under a name that says whose it is.
func tempDir() (string, error) {
	name, err := ownName("*")
	if err != nil {
		return "", err
	}
	return os.MkdirTemp("", name)
}

// Close pulls every plug and removes everything.
func (l *Lab) Close() error {
	for _, m := range l.machines {
		m.Kill()
	}
	for _, a := range l.appliances {
		a.Kill()
	}
	return errors.Join(l.Network.Close(), os.RemoveAll(l.Dir))
}
