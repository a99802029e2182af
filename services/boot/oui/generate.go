//go:build ignore

// This program makes oui.txt of the listings of Debian's package ieee-data. Its
// argument is the folder with the listings.
package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"unicode"
)

func main() {
	dir := "/usr/share/ieee-data"
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	names := map[string]string{}
	for _, file := range []string{"oui.csv", "mam.csv", "oui36.csv", "iab.csv"} {
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			fail(err)
		}
		rows, err := csv.NewReader(f).ReadAll()
		f.Close()
		if err != nil {
			fail(fmt.Errorf("%s: %w", file, err))
		}
		for _, row := range rows[1:] { // Registry, Assignment, Organization Name, Organization Address
			if name := short(row[2]); name != "" {
				names[row[1]] = name
			}
		}
	}
	prefixes := make([]string, 0, len(names))
	for p := range names {
		prefixes = append(prefixes, p)
	}
	sort.Strings(prefixes)
	var out bytes.Buffer
	for _, p := range prefixes {
		fmt.Fprintln(&out, p, names[p])
	}
	if err := os.WriteFile("oui.txt", out.Bytes(), 0o644); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "oui:", err)
	os.Exit(1)
}

// legal are the words at the end of a name that say how a company is owned.
var legal = regexp.MustCompile(`(?i)^(inc|incorporated|corp|corporation|corporate|co|company|ltd|limited|ltda|llc|l\.l\.c|lp|llp|plc|gmbh|ag|kg|mbh|sa|s\.a|sas|s\.a\.s|sarl|spa|s\.p\.a|srl|s\.r\.l|bv|b\.v|nv|n\.v|oy|oyj|ab|as|a/s|aps|a\.s|kk|k\.k|pty|pvt|pte|private|sdn|bhd|doo|d\.o\.o|sro|s\.r\.o|zrt|kft|inc\.?\)|&|and|the)\.?$`)

// unknown are not makers: the IEEE's own parents of smaller blocks, and makers
// who keep their name to themselves.
var unknown = map[string]bool{"private": true, "ieee registration authority": true}

// short makes a name short enough for a line of a list.
func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if unknown[strings.ToLower(s)] {
		return ""
	}
	for {
		s = strings.TrimRight(s, " ,.;-")
		cut := strings.LastIndexAny(s, " ,.")
		if cut < 0 || !legal.MatchString(s[cut+1:]) {
			break
		}
		s = s[:cut]
	}
	words := strings.Fields(s)
	for i, w := range words {
		if len(w) > 4 && strings.ToUpper(w) == w && !strings.ContainsFunc(w, unicode.IsDigit) {
			r := []rune(strings.ToLower(w))
			r[0] = unicode.ToUpper(r[0])
			words[i] = string(r)
		}
	}
	const most = 32
	out := ""
	for _, w := range words {
		if out != "" && len(out)+1+len(w) > most {
			break
		}
		out = strings.TrimSpace(out + " " + w)
	}
	return strings.TrimRight(out, " ,.;-&(")
}
