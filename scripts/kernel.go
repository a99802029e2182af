package scripts

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"lunboot/services/boot"
	"lunboot/store"
)

// Names of profiles' fields.
const (
	FieldMedia   = "media"   // name of a disc, or of a kernel
	FieldKernel  = "kernel"  // URL, or path below /files/; default: the disc's
	FieldInitrd  = "initrd"  // the same, any number
	FieldCmdline = "cmdline" // further words for the kernel
	FieldSystem  = "system"  // whose installer it is; default: what the disc says
	FieldDisk    = "disk"    // "volume" (default) or "own": where it installs to
	FieldWimboot = "wimboot" // name of the loader of Windows images
	FieldItems   = "items"   // menu: one profile a line, with "= label" behind it
	FieldDefault = "default" // menu: the profile that is started when nobody chooses
	FieldTimeout = "timeout" // menu: seconds until that
	FieldBIOS    = "bios"    // local: "disk" (default) or "exit"
	FieldDrive   = "drive"   // local: BIOS's number of the disk, 0x80 by default
)

// fieldsOf is what each kind of profile may say.
var fieldsOf = map[store.ProfileKind][]string{
	store.ProfileKernel:  {FieldMedia, FieldKernel, FieldInitrd, FieldCmdline},
	store.ProfileInstall: {FieldMedia, FieldKernel, FieldInitrd, FieldCmdline, FieldSystem, FieldDisk},
	store.ProfileWimboot: {FieldMedia, FieldWimboot, FieldDisk},
	store.ProfileMenu:    {FieldItems, FieldDefault, FieldTimeout},
	store.ProfileLocal:   {FieldBIOS, FieldDrive},
}

// Fields lists the names of a kind's fields.
func Fields(k store.ProfileKind) []string { return fieldsOf[k] }

// allowed refuses fields that the kind does not have.
func allowed(p store.Profile) error {
	for name, v := range p.Fields {
		if v != "" && !slices.Contains(fieldsOf[p.Kind], name) {
			return store.Invalid(name, "a profile of kind %s has no field %q; it has %s", p.Kind, name, listed(fieldsOf[p.Kind]))
		}
	}
	return nil
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// filled are a profile's fields with their variables replaced.
func filled(p store.Profile, f Facts) (map[string]string, error) {
	if err := allowed(p); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, text := range p.Fields {
		value := variable.value
		if name == FieldKernel || name == FieldInitrd {
			value = variable.inURL
		}
		v, err := expandWith(name, text, f, func(v variable) string { return value(v, f) })
		if err != nil {
			return nil, err
		}
		if name != FieldInitrd && name != FieldItems && strings.ContainsAny(v, "\r\n") {
			return nil, store.Invalid(name, "the %s must stand on one line", name)
		}
		out[name] = strings.TrimSpace(v)
	}
	return out, nil
}

// disc finds the media file that a field names.
func (f Facts) disc(field, name string) (store.Media, error) {
	i := slices.IndexFunc(f.Media, func(m store.Media) bool { return m.Name == name })
	if i < 0 {
		return store.Media{}, store.Invalid(field, "there is no media %q; add it first, or choose another", name)
	}
	return f.Media[i], nil
}

// files is the URL of a path below /files/.
func (f Facts) files(parts ...string) string {
	u := url.URL{Path: boot.FilesRoot + path.Join(parts...)}
	return strings.TrimSuffix(boot.ScriptURL(f.Boot), boot.ScriptPath) + u.EscapedPath()
}

// start is what a kernel is started with.
type start struct {
	kernel  string
	initrds []string
	media   store.Media // zero: none was named
}

// startOf takes the kernel and RAM disks from the fields, and what they leave
// out from the disc.
func startOf(p store.Profile, v map[string]string, f Facts) (s start, err error) {
	if name := v[FieldMedia]; name != "" {
		if s.media, err = f.disc(FieldMedia, name); err != nil {
			return s, err
		}
	}
	switch {
	case v[FieldKernel] != "":
		if s.kernel, err = f.fileURL(FieldKernel, v[FieldKernel]); err != nil {
			return s, err
		}
	case s.media.Kind == store.MediaKernel:
		s.kernel = f.files(s.media.Name)
	case s.media.Contents.Kernel != "":
		s.kernel = f.files(s.media.Name, s.media.Contents.Kernel)
	case s.media.Name != "":
		return s, store.Invalid(FieldKernel, "no kernel was found in media %s; name its path, such as %s/boot/vmlinuz", s.media.Name, s.media.Name)
	case p.Kind == store.ProfileInstall:
		return s, store.Invalid(FieldMedia, "an install profile needs the disc's media, or the kernel's URL")
	default:
		return s, store.Invalid(FieldKernel, "a kernel profile needs the kernel's URL, or its path below %s", boot.FilesRoot)
	}
	given := strings.Fields(v[FieldInitrd])
	for _, path := range given {
		u, err := f.fileURL(FieldInitrd, path)
		if err != nil {
			return s, err
		}
		s.initrds = append(s.initrds, u)
	}
	if len(given) == 0 && v[FieldKernel] == "" {
		for _, path := range s.media.Contents.Initrds {
			s.initrds = append(s.initrds, f.files(s.media.Name, path))
		}
	}
	return s, nil
}

// kernel makes the script that starts a kernel with its initial RAM disks.
func kernel(p store.Profile, f Facts) (string, error) {
	v, err := filled(p, f)
	if err != nil {
		return "", err
	}
	s, err := startOf(p, v, f)
	if err != nil {
		return "", err
	}
	in := fillFrom(f)
	in.Why, in.Say = "start a kernel that comes over HTTP", "from a kernel over HTTP"
	return linux(in, s, nil, v[FieldCmdline], f)
}

// linux finishes the script that starts a kernel. words come before those of the
// profile, so that an operator's own wins.
func linux(in fill, s start, words []string, cmdline string, f Facts) (string, error) {
	own := strings.Fields(cmdline)
	for _, w := range own {
		if w == "||" || w == "&&" || w == ";" || w[0] == '#' {
			return "", store.Invalid(FieldCmdline, "iPXE takes the word %q for the end of the command line", w)
		}
	}
	// What follows --- goes to the system that is installed.
	cut := slices.Index(own, "---")
	if cut < 0 {
		cut = len(own)
	}
	for i, url := range s.initrds {
		name := fmt.Sprintf("initrd%d.img", i)
		in.Initrds = append(in.Initrds, initrd{Name: name, URL: url})
	}
	all := append([]string{s.kernel}, words...)
	all = append(all, own[:cut]...)
	for _, i := range in.Initrds {
		// On UEFI a kernel loads its RAM disks by name; on BIOS the word is
		// not read.
		all = append(all, "initrd="+i.Name)
	}
	in.Kernel = strings.Join(append(all, own[cut:]...), " ")
	in.Steps = []step{
		{"no_kernel", "could not fetch its kernel, which is at " + Word(s.kernel), f.report("kernel")},
		{"no_initrd", "could not fetch its initial RAM disk", f.report("initrd")},
		{"no_start", "could not start its kernel", f.report("start")},
	}
	hooked(&in, f)
	return execute("kernel.tmpl", in)
}

// hooked adds the step that a hook of the volume needs.
func hooked(in *fill, f Facts) {
	if in.Hook {
		in.Steps = append([]step{{"no_volume", fmt.Sprintf("could not reach its volume %s, LUN %d at %s", in.Volume, in.LUN, in.Portal), f.report("sanhook")}}, in.Steps...)
	}
}

// target says whether the volume is hooked, and refuses what cannot be.
func target(v map[string]string, f Facts, in *fill) error {
	switch v[FieldDisk] {
	case "", "volume":
		if f.Disk == nil {
			return ErrNoDisk
		}
		if f.Initiator == "" || f.Target == "" || !f.Portal.IsValid() || !f.Boot.IsValid() {
			return &store.Error{Kind: store.KindInternal, Op: "make script", Subject: f.Machine, Msg: "the initiator, target or address is missing"}
		}
		in.Hook = true
	case "own":
	default:
		return store.Invalid(FieldDisk, "%q is no place to install to; choose volume or own", v[FieldDisk])
	}
	return nil
}

// system is whose installer a profile runs.
func system(v map[string]string, m store.Media) (store.MediaOS, error) {
	s := store.MediaOS(v[FieldSystem])
	switch s {
	case "":
		return m.Contents.OS, nil
	case store.MediaDebian, store.MediaUbuntu, store.MediaFedora, store.MediaRHEL, store.MediaAlpine:
		return s, nil
	}
	return "", store.Invalid(FieldSystem, "%q is no system whose installer is known; choose debian, ubuntu, fedora, rhel or alpine", s)
}

// install makes the script that runs an installer, with the machine's volume
// hooked so that the installer finds it by the iBFT.
func install(p store.Profile, f Facts) (string, error) {
	v, err := filled(p, f)
	if err != nil {
		return "", err
	}
	s, err := startOf(p, v, f)
	if err != nil {
		return "", err
	}
	sys, err := system(v, s.media)
	if err != nil {
		return "", err
	}
	if sys == store.MediaWindows {
		return "", store.Invalid(FieldMedia, "media %s is Windows setup; a profile of kind wimboot starts it", s.media.Name)
	}
	in := fillFrom(f)
	if err := target(v, f, &in); err != nil {
		return "", err
	}
	words, err := installerWords(p, sys, s.media, in.Hook, f)
	if err != nil {
		return "", err
	}
	if sys == store.MediaDebian && in.Hook {
		s.initrds = append(s.initrds, f.files(append(AnswerPath(f.Machine, p.Name, f.Attempt, f.Key), debianVolume)...))
	}
	name := string(sys)
	if name == "" {
		name = "an installer"
	} else {
		name = "the installer of " + name
	}
	in.Why, in.Say = "run "+name, "with "+name
	return linux(in, s, words, v[FieldCmdline], f)
}

// installerWords are what each installer must be told: where the rest of it is,
// where its answers are, and that the iBFT names a volume.
func installerWords(p store.Profile, sys store.MediaOS, m store.Media, san bool, f Facts) (words []string, err error) {
	if strings.TrimSpace(p.Text) != "" {
		if _, err := Answer(p, f, AnswerFile(sys)); err != nil {
			return nil, err
		}
		if sys == store.MediaAlpine || sys == "" {
			return nil, store.Invalid("text", "only the installers of debian, ubuntu, fedora and rhel take answers; say in the field %s which of them it is", FieldSystem)
		}
	}
	answers := strings.TrimSpace(p.Text) != ""
	at := f.files(AnswerPath(f.Machine, p.Name, f.Attempt, f.Key)...) + "/"
	disc := f.files(m.Name)
	switch sys {
	case store.MediaDebian:
		// The machine's own card and name, so that nothing is asked about them.
		words = append(words, "BOOTIF=01-${netX/mac:hexhyp}", "hostname="+Word(f.Machine))
		if answers {
			words = append(words, "auto=true", "priority=critical", "url="+at+AnswerFile(sys))
		}
	case store.MediaUbuntu:
		words = append(words, "ip=dhcp")
		if m.Kind == store.MediaISO {
			words = append(words, "url="+disc)
		}
		if answers {
			words = append(words, "autoinstall", "cloud-config-url=/dev/null", "ds=nocloud-net;s="+at)
		}
	case store.MediaFedora, store.MediaRHEL:
		if m.Kind == store.MediaISO {
			words = append(words, "inst.repo="+disc)
		}
		if answers {
			words = append(words, "inst.ks="+at+AnswerFile(sys))
		}
		if san {
			// Before dracut 038 rd.iscsi.ibft=1 was called ip=ibft.
			words = append(words, "rd.iscsi.firmware=1", "rd.iscsi.ibft=1", "ip=ibft")
		} else {
			words = append(words, "BOOTIF=01-${netX/mac:hexhyp}", "ip=dhcp")
		}
	case store.MediaAlpine:
		words = append(words, "BOOTIF=01-${netX/mac:hexhyp}", "ip=dhcp")
		if m.Kind == store.MediaISO {
			words = append(words, "alpine_repo="+disc+"/apks")
			if m.Contents.Modloop != "" {
				words = append(words, "modloop="+f.files(m.Name, m.Contents.Modloop))
			}
		}
		words = append(words, "modules=loop,squashfs")
	}
	return words, nil
}

// AnswerFile is what an installer's file of answers is called.
func AnswerFile(sys store.MediaOS) string {
	switch sys {
	case store.MediaDebian:
		return "preseed.cfg"
	case store.MediaUbuntu:
		return "user-data"
	case store.MediaFedora, store.MediaRHEL:
		return "ks.cfg"
	case store.MediaWindows:
		return "install.bat"
	}
	return "answers"
}

// AnswerPath is where a machine's answer files lie below /files/. The last word
// lets the installer report; it is "0" without an attempt.
func AnswerPath(machine, profile string, id store.AttemptID, key string) []string {
	ticket := "0"
	if id != 0 {
		ticket = strconv.FormatInt(int64(id), 10) + "-" + key
	}
	return []string{store.AnswerRoot, machine, profile, ticket}
}

// ErrNoAnswer is returned for an answer file that a profile does not have.
var ErrNoAnswer = &store.Error{Kind: store.KindNotFound, Op: "make answers", Msg: "the profile has no such answer file"}

// Answer makes an answer file of a machine: the profile's text with its
// variables replaced, or what belongs to it.
func Answer(p store.Profile, f Facts, file string) (string, error) {
	if p.Kind != store.ProfileInstall && p.Kind != store.ProfileWimboot || strings.TrimSpace(p.Text) == "" && file != debianVolume {
		return "", ErrNoAnswer
	}
	sys := store.MediaWindows
	if p.Kind == store.ProfileInstall {
		m, err := f.disc(FieldMedia, p.Fields[FieldMedia])
		if err != nil && p.Fields[FieldMedia] != "" {
			return "", err
		}
		if sys, err = system(p.Fields, m); err != nil {
			return "", err
		}
	}
	switch {
	case sys == store.MediaDebian && file == debianVolume:
		return debianArchive()
	case file == AnswerFile(sys):
		text := strings.ReplaceAll(p.Text, "\r\n", "\n")
		if sys == store.MediaWindows {
			text = strings.ReplaceAll(text, "\n", "\r\n")
		}
		return expandWith("text", text, f, func(v variable) string { return v.of(f) })
	case sys == store.MediaWindows && file == winpeshl:
		// The first program of Windows PE; without it setup itself is.
		return "[LaunchApps]\r\n\"install.bat\"\r\n", nil
	case sys == store.MediaUbuntu && file == "meta-data":
		return "instance-id: " + f.Machine + "-" + strconv.FormatInt(int64(f.Attempt), 10) + "\nlocal-hostname: " + f.Machine + "\n", nil
	case sys == store.MediaUbuntu && file == "vendor-data":
		if p.Fields[FieldDisk] == "own" {
			return "", nil
		}
		// The installer takes the disks that are there when it looks for them, and
		// cannot log in to iSCSI targets itself (subiquity's "Configure storage",
		// limitations). cloud-init runs this before the installer starts; user-data
		// with a bootcmd of its own takes its place.
		return "#cloud-config\nbootcmd:\n- modprobe -a iscsi_ibft iscsi_tcp && iscsistart -b || logger -t lunboot the volume of the iBFT could not be reached\n", nil
	}
	return "", ErrNoAnswer
}

const winpeshl = "winpeshl.ini"

// wimboot makes the script that starts Windows setup from its disc. iPXE's
// wimboot hands the files to Windows' own boot loader, by their names
// (https://ipxe.org/wimboot).
func wimboot(p store.Profile, f Facts) (string, error) {
	v, err := filled(p, f)
	if err != nil {
		return "", err
	}
	if v[FieldWimboot] == "" || v[FieldMedia] == "" {
		return "", store.Invalid(FieldWimboot, "a wimboot profile needs two media: wimboot itself, and the disc of Windows")
	}
	loader, err := f.disc(FieldWimboot, v[FieldWimboot])
	if err != nil {
		return "", err
	}
	if loader.Kind != store.MediaWimboot {
		return "", store.Invalid(FieldWimboot, "media %s is not wimboot, the loader of Windows images (https://ipxe.org/wimboot)", loader.Name)
	}
	m, err := f.disc(FieldMedia, v[FieldMedia])
	if err != nil {
		return "", err
	}
	c := m.Contents
	if c.BCD == "" || c.SDI == "" || c.WIM == "" {
		return "", store.Invalid(FieldMedia, "media %s is no disc of Windows: boot/bcd, boot/boot.sdi and sources/boot.wim were not all found in it", m.Name)
	}
	in := fillFrom(f)
	if err := target(v, f, &in); err != nil {
		return "", err
	}
	// On UEFI it finds itself among the files that it is handed. It leaves itself out
	// by this name, and gives up at a name that it has no room for, of 36 letters.
	in.Kernel = "--name wimboot " + f.files(loader.Name)
	if strings.TrimSpace(p.Text) != "" {
		for _, file := range []string{winpeshl, AnswerFile(store.MediaWindows)} {
			if _, err := Answer(p, f, file); err != nil {
				return "", err
			}
			in.Initrds = append(in.Initrds, wrapped(file, f.files(append(AnswerPath(f.Machine, p.Name, f.Attempt, f.Key), file)...)))
		}
	}
	in.Initrds = append(in.Initrds, wrapped("BCD", f.files(m.Name, c.BCD)), wrapped("boot.sdi", f.files(m.Name, c.SDI)), wrapped("boot.wim", f.files(m.Name, c.WIM)))
	in.Why, in.Say = "start Windows setup", "with Windows setup"
	in.Steps = []step{
		{"no_kernel", "could not fetch wimboot", f.report("kernel")},
		{"no_initrd", "could not fetch a file of Windows setup", f.report("initrd")},
		{"no_start", "could not start Windows setup", f.report("start")},
	}
	hooked(&in, f)
	return execute("kernel.tmpl", in)
}
