package scripts

import (
	"strconv"
	"strings"

	"lunboot/services/boot"
	"lunboot/store"
)

// menuItem is one line of a menu's script.
type menuItem struct{ Name, Label string }

// menu makes the script that lets somebody at the machine choose a profile.
func menu(p store.Profile, f Facts) (string, error) {
	if err := allowed(p); err != nil {
		return "", err
	}
	m, err := p.Menu()
	if err != nil {
		return "", err
	}
	in := fillFrom(f)
	in.Profile = Word(p.Name)
	for _, i := range m.Items {
		in.Items = append(in.Items, menuItem{Word(i.Profile), Text(i.Label)})
	}
	in.Default, in.Millis = Word(m.Default), m.Timeout*1000
	in.Choose = boot.ChoiceURL(f.Boot, "${lunboot_choice}")
	in.Report = f.report("menu")
	return execute("menu.tmpl", in)
}

// Local makes the script that leaves iPXE for the machine's own disk.
func local(p store.Profile, f Facts) (string, error) {
	if err := allowed(p); err != nil {
		return "", err
	}
	in := fill{
		Why:     "Boot script of " + Word(f.Machine) + ": start from its own disk.",
		Say:     "Starting " + Word(f.Machine) + " from its own disk.",
		Machine: Word(f.Machine), Disk: true, Drive: "0x80", Report: f.report("local"),
	}
	if d := strings.TrimSpace(p.Fields[FieldDrive]); d != "" {
		n, err := strconv.ParseUint(d, 0, 8)
		if err != nil || n < 0x80 || n > 0x8f {
			return "", store.Invalid(FieldDrive, "%q is no disk's number in BIOS; the first is 0x80, the second 0x81", d)
		}
		in.Drive = "0x" + strconv.FormatUint(n, 16)
	}
	switch strings.TrimSpace(p.Fields[FieldBIOS]) {
	case "", "disk":
	case "exit":
		in.Disk = false
	default:
		return "", store.Invalid(FieldBIOS, "%q is no way to leave for the disk on BIOS; choose disk or exit", p.Fields[FieldBIOS])
	}
	return execute("exit.tmpl", in)
}
