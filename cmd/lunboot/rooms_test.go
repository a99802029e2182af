package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// room is what one package may import of this module, with the reason.
type room struct {
	may    string // space-separated prefixes below lunboot/; empty: standard library and libraries of its trade
	stdlib bool   // nothing but the standard library besides may
	why    string
}

// rooms is the import table of the house. A package that is not listed, and a
// listed package that is gone, both fail.
var rooms = map[string]room{
	"cmd/lunboot":                 {may: "*", why: "the composition root knows every part"},
	"cmd/lunboot/cli":             {may: "store store/archive services/boot/diagnose services/boot/ipxeerr", why: "every verb is a client of /api/v1; a backup is checked where it was written, and codes are explained where they are read"},
	"cmd/netlab":                  {may: "cmd/netlab/lab cmd/netlab/load cmd/netlab/load/dhcp cmd/netlab/load/rounds cmd/netlab/load/tftp cmd/netlab/load/trace services/boot store", why: "the lab runs the binary as a user would"},
	"cmd/netlab/lab":              {may: "store services/boot cmd/netlab/lab", why: "the lab runs the binary as a user would, and names loaders as everybody does"},
	"cmd/netlab/lab/area":         {may: "", stdlib: true, why: "the bytes by which host and guest prove themselves"},
	"cmd/netlab/load":             {may: "services/iscsi/pdu cmd/netlab/load/rounds cmd/netlab/load/trace", why: "a load generator shares the wire's types with what it measures, and nothing else"},
	"cmd/netlab/load/dhcp":        {may: "cmd/netlab/load", why: "a relay with its clients shares nothing with the server that it asks"},
	"cmd/netlab/load/rounds":      {may: "", stdlib: true, why: "a comparison in rounds knows nothing of what is compared"},
	"cmd/netlab/load/tftp":        {may: "", why: "clients that know nothing of the server but its address"},
	"cmd/netlab/load/trace":       {may: "services/iscsi/pdu", why: "a recorder shares the wire's types with what it listens to, and nothing else"},
	"cmd/netlab/guest":            {may: "cmd/netlab/lab/area", why: "the program inside the lab's Linux machine"},
	"services":                    {may: "", why: "what every service has in common knows none of them"},
	"services/boot":               {may: "store store/listing", why: "pure names, and what loaders are searched by"},
	"services/boot/attempt":       {may: "store services/boot services/boot/ipxeerr", why: "pure fold"},
	"services/boot/diagnose":      {may: "store services/boot services/boot/attempt services/boot/ipxeerr services/boot/oui", why: "pure rules"},
	"services/boot/circle":        {may: "store services/boot", why: "who runs in circles is the same over TFTP and HTTP"},
	"services/boot/oui":           {may: "store", why: "pure table"},
	"services/boot/ipxeerr":       {may: "store services/boot", why: "pure table"},
	"services/explain":            {may: "store services/boot", why: "a dry run asks the parts through interfaces of its own"},
	"services/events":             {may: "store services", why: "the journal knows no reader"},
	"services/attempts":           {may: "store services services/boot services/boot/attempt services/boot/diagnose services/boot/ipxeerr", why: "the one runner of folds"},
	"services/inventory":          {may: "store store/volume store/volume/image store/volume/stage services services/boot/oui", why: "operator acts join rows and files, an image is opened before anything is made of it, and a machine without a name is called by its maker"},
	"services/dhcp":               {may: "store services services/boot services/dhcp", why: "services share nouns, names and events"},
	"services/dhcp/bootfile":      {may: "store services/boot services/dhcp/message", why: "the boot answer is pure, in every mode the same"},
	"services/dhcp/ledger":        {may: "store", why: "whose an address is depends on no packet"},
	"services/dhcp/message":       {may: "store services/boot", why: "packets are decoded once, at the edge"},
	"services/dhcp/survey":        {may: "store services/boot/oui services/dhcp/message services/dhcp/sockets services/dhcp/wire", why: "asking a network about itself needs no lease, and names a stranger by the maker of its card"},
	"services/dhcp/sockets":       {may: "store services", why: "sockets know no policy"},
	"services/dhcp/wire":          {may: "store", why: "frames below UDP"},
	"services/ra":                 {may: "store services services/boot", why: "services share nouns, names and events"},
	"services/backup":             {may: "store store/archive store/volume", why: "which rows and files an appliance is, and what volumes held at one moment"},
	"services/certificate":        {may: "store", why: "bytes of X.509 and two files; who shows it is another's matter"},
	"services/capture":            {may: "store services", why: "services share nouns, names and events"},
	"services/media":              {may: "store store/media store/volume store/volume/stage", why: "operator acts on media join rows and files, and a file of the appliance is opened as for a volume"},
	"services/power":              {may: "store services services/power", why: "one order, whatever a BMC speaks"},
	"services/power/fault":        {may: "store", why: "why a BMC did not do it, in words, whatever it speaks"},
	"services/power/ipmi":         {may: "store services services/power/fault", why: "a protocol leaf"},
	"services/power/redfish":      {may: "store services services/power/fault", why: "a protocol leaf"},
	"services/notify":             {may: "store services", why: "services share nouns, names and events"},
	"services/tftp":               {may: "store services services/boot services/boot/circle", why: "services share nouns, names and events"},
	"services/httpboot":           {may: "store services services/boot services/boot/attempt services/boot/circle scripts", why: "the only service that renders scripts, and the fold says by which profile a boot's was made"},
	"services/loaders":            {may: "store services services/boot", why: "files and their manifest"},
	"services/httpd":              {may: "services store", why: "a listener around a handler"},
	"services/doctor":             {may: "store services services/boot services/doctor/filter", why: "checks, also in-process"},
	"services/doctor/filter":      {may: "", stdlib: true, why: "what becomes of a packet is pure"},
	"services/iscsi":              {may: "store services services/iscsi", why: "portals over its own rooms"},
	"services/iscsi/iscsitest":    {may: "store services/iscsi", why: "a test kit: an initiator and a catalogue"},
	"services/iscsi/memory":       {may: "", stdlib: true, why: "bytes are counted without knowing what they are for"},
	"services/iscsi/socket":       {may: "", why: "bytes go over a socket without anybody knowing what they mean"},
	"services/iscsi/pdu":          {may: "", stdlib: true, why: "wire types stand alone"},
	"services/iscsi/login":        {may: "store services/iscsi/pdu", why: "a pure machine"},
	"services/iscsi/session":      {may: "store services services/iscsi/pdu services/iscsi/login services/iscsi/scsi services/iscsi/scsi/sense services/iscsi/memory services/iscsi/socket", why: "the connection loop"},
	"services/iscsi/scsi":         {may: "store services/iscsi/scsi", stdlib: true, why: "a device server knows error kinds and bytes"},
	"services/iscsi/scsi/reserve": {may: "store services/iscsi/scsi/sense", stdlib: true, why: "reservations as pure functions of a state"},
	"services/iscsi/scsi/sense":   {may: "store", stdlib: true, why: "how a command fails, in the standard's words"},
	"services/iscsi/scsi/xcopy":   {may: "services/iscsi/scsi/sense", stdlib: true, why: "a copy's parameter list, decoded once"},
	"store":                       {may: "", stdlib: true, why: "nouns are for everybody"},
	"store/sqlite":                {may: "store store/sqlite/dbfile", why: "the only SQL"},
	"store/sqlite/dbfile":         {may: "store", why: "one SQLite file: pragmas, migrations, backup"},
	"store/archive":               {may: "store", why: "a backup is files and a manifest, and knows no noun"},
	"store/media":                 {may: "store store/media/disc", why: "what media are is told by their bytes, and these survive power loss"},
	"store/media/disc":            {may: "", stdlib: true, why: "bytes of a disc to files"},
	"store/listing":               {may: "store", stdlib: true, why: "what lists are searched and sorted by, one table a noun"},
	"store/sheet":                 {may: "store store/listing", stdlib: true, why: "machines to the cells of a table, and back, and what lists show to cells"},
	"store/storetest":             {may: "store", why: "the contract of every inventory"},
	"store/volume":                {may: "store store/volume/clone store/volume/crashfs store/volume/image store/volume/preflight", why: "bytes that survive power loss"},
	"store/volume/clone":          {may: "store", why: "one layer over another, whatever holds their bytes"},
	"store/volume/crashfs":        {may: "store", stdlib: true, why: "a test kit"},
	"store/volume/image":          {may: "store", why: "bytes of a file to the bytes of a disk, and back"},
	"store/volume/preflight":      {may: "store", why: "bytes of a disk to findings"},
	"store/volume/stage":          {may: "store store/volume/image", why: "what is being sent is no volume yet, and may be an image of one"},
	"store/volume/volumetest":     {may: "store store/volume", why: "the contract of every volume"},
	"scripts":                     {may: "store services/boot", why: "profiles to text"},
	"web/api":                     {may: "store store/sheet store/listing services/boot services/boot/oui services/boot/ipxeerr services/boot/diagnose web/auth web/download", why: "never a service: it declares what it needs"},
	"web/auth":                    {may: "store", why: "who, and what they may do"},
	"web/auth/oidc":               {may: "store", why: "who the provider vouches for; who that is here is another's matter"},
	"web/auth/oidc/oidctest":      {may: "", why: "a test kit: a provider that shares nothing with its client"},
	"web/chart":                   {may: "", stdlib: true, why: "numbers to a picture, whatever they count"},
	"web/download":                {may: "store store/listing store/sheet services/boot services/boot/oui", why: "pages and API send a volume, and join and send a list, in the same way"},
	"web/metrics":                 {may: "store web/auth", why: "never a service: it is given a function to read by"},
	"deploy":                      {may: "", why: "nothing but tests of what is shipped around the binary"},
	"web/probe":                   {may: "", stdlib: true, why: "what watches from outside learns the names of parts and no more"},
	"web/pages":                   {may: "store store/sheet services/boot services/boot/oui services/boot/ipxeerr services/boot/diagnose web/auth web/chart web/download web/pages/manual web/pages/typed store/listing", why: "never a service: it declares what it needs"},
	"web/pages/manual":            {may: "store", why: "what the help says of the grammar, of profiles and of places; what they do is others' matter"},
	"web/pages/typed":             {may: "store", why: "what is typed becomes nouns, or goes back to who typed it, whatever page it stood on"},
}

// subfolders names the rooms whose own subfolders come with them.
var subfolders = map[string]bool{"services/iscsi": true, "services/iscsi/scsi": true, "services/dhcp": true, "services/power": true, "cmd/netlab/lab": true, "cmd/netlab/load": true}

const module = "lunboot/"

type goPackage struct {
	ImportPath string
	Dir        string
	Imports    []string
	GoFiles    []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestEveryPackageImportsOnlyWhatItsRoomAllows(t *testing.T) {
	found := map[string]bool{}
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		found[name] = true
		r, ok := rooms[name]
		if !ok {
			t.Errorf("%s is in no room: give it one in this table, with a reason", name)
			continue
		}
		for _, imp := range p.Imports {
			if other, ours := strings.CutPrefix(imp, module); ours {
				if !r.allows(other) {
					t.Errorf("%s may not import %s: %s", name, other, r.why)
				}
				continue
			}
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && r.stdlib {
				t.Errorf("%s may import only the standard library, not %s: %s", name, imp, r.why)
			}
			if imp == "database/sql" && !strings.HasPrefix(name, "store/sqlite") {
				t.Errorf("%s imports database/sql: SQL lives in store/sqlite", name)
			}
		}
	}
	for name := range rooms {
		if !found[name] {
			t.Errorf("the table lists %s, which is gone", name)
		}
	}
}

func (r room) allows(pkg string) bool {
	if r.may == "*" {
		return true
	}
	for _, p := range strings.Fields(r.may) {
		if pkg == p || subfolders[p] && strings.HasPrefix(pkg, p+"/") {
			return true
		}
	}
	return false
}

// forbidden are calls and shapes that have their one place or none.
var forbidden = []struct {
	re     *regexp.Regexp
	except string // path prefix where it may stand
	why    string
}{
	{regexp.MustCompile(`\bos\.Exit\(`), "cmd/", "only main ends the program"},
	{regexp.MustCompile(`\blog\.(Fatal|Panic|Print)`), "", "errors are returned, logs are injected"},
	{regexp.MustCompile(`^func init\(\)`), "", "work begins in main, in reading order"},
	{regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`), "", "unfinished work is named in the open, not in comments"},
	{regexp.MustCompile(`\bslog\.Default\(\)`), "", "loggers are injected"},
}

const (
	fileBudget    = 600
	packageBudget = 2500
)

// largerBudgets are the packages that one clear subject made larger.
var largerBudgets = map[string]struct {
	lines int
	why   string
}{
	"cmd/lunboot":            {5200, "the composition root: every part has its file here, where it is put together with the others; what part to take in DHCP on each interface is settled here, since flags, inventory and wire all have a word in it, and an interface may get its address later"},
	"web/pages":              {9400, "what people see: a file for each page over one shell; what stands alone, forms and charts, has rooms of its own"},
	"store":                  {5800, "the nouns of everybody, a file for each: it grows with the nouns and not with ideas"},
	"store/sqlite":           {5500, "all the SQL there is, a file for each noun: it grows with the nouns and not with ideas"},
	"store/storetest":        {3500, "the contract of every inventory, a file for each noun: it grows with the nouns"},
	"web/api":                {4500, "every route, a file for each noun: it grows with the routes and not with ideas"},
	"store/volume":           {5200, "one owner of every open file: files, devices and layers are opened, counted and changed under one lock, and a view of what they held needs to know of every such change; what is in a layer, an image or a file system has rooms of its own"},
	"cmd/lunboot/cli":        {5000, "every verb, a file for each noun: it grows with the verbs and not with ideas"},
	"services/inventory":     {6400, "every act of the operator, under one lock that makes each a step: a file for each noun"},
	"cmd/netlab":             {3000, "every verb and every load of the bench, a file for each: it grows with them; what can stand alone, generators, rounds and traces, has rooms below load"},
	"cmd/netlab/lab":         {3600, "one kit: the networks, images and machines that tests of every kind start from"},
	"services/dhcp":          {3100, "one server: each request is answered by the mode of its subnet, from leases, through relays or beside another server; what can stand alone, decoding, the boot answer, sockets and asking the wire, has rooms of its own"},
	"services/boot/diagnose": {4400, "the table of rules, a file for each stage of a boot, and what the help says of each code: it grows with what is explained and not with ideas"},
	"services/iscsi/session": {3900, "one connection's life: framing, order, data and answers meet in one lock; what can stand alone, login, memory and commands, has rooms of its own"},
	"store/volume/image":     {3700, "one way to read a disk out of a file, and to write one: a file for each format, none of which can stand without the checks that all share"},
	"services/iscsi/scsi":    {3700, "one device server: every command of its one table, and the wipes that outlive their commands; what is pure, sense data, reservations and copy lists, has rooms of its own"},
}

func TestFilesKeepTheHouseRules(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		total := 0
		for _, f := range p.GoFiles {
			path := filepath.Join(p.Dir, f)
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := 0
			for s := bufio.NewScanner(bytes.NewReader(src)); s.Scan(); lines++ {
				for _, rule := range forbidden {
					if rule.re.Match(s.Bytes()) && (rule.except == "" || !strings.HasPrefix(name, rule.except)) {
						t.Errorf("%s/%s:%d: %s: %s", name, f, lines+1, strings.TrimSpace(s.Text()), rule.why)
					}
				}
			}
			total += lines
			if lines > fileBudget {
				t.Errorf("%s/%s has %d lines, %d are the budget: does it still have one subject?", name, f, lines, fileBudget)
			}
		}
		budget := packageBudget
		if larger, ok := largerBudgets[name]; ok {
			budget = larger.lines
		}
		if total > budget {
			t.Errorf("%s has %d lines, %d are the budget: does it still hold one idea?", name, total, budget)
		}
		switch filepath.Base(name) {
		case "util", "utils", "common", "helpers", "types", "models", "misc":
			t.Errorf("%s: a package is named for what it holds", name)
		}
	}
}

// What a container is given of other packages is somebody's work under somebody's
// licence.
func TestWhatTheImageTakesFromOthersIsNamed(t *testing.T) {
	recipe, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	named, err := os.ReadFile("../../THIRD_PARTY.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^COPY --from=\S+ (.*) \S+$`).FindAllStringSubmatch(string(recipe), -1) {
		for _, file := range strings.Fields(m[1]) {
			if strings.HasPrefix(file, "/src/") {
				continue
			}
			if found++; !strings.Contains(string(named), "`"+file+"`") {
				t.Errorf("THIRD_PARTY.md does not say whose %s is", file)
			}
		}
	}
	if found == 0 {
		t.Error("no file of another package is found; how does the image copy the authorities?")
	}
}
