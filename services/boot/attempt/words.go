package attempt

import (
	"fmt"
	"strconv"
	"time"

	"lunboot/store"
)

// Amount prints bytes as people say them, in decimal units: "18 MB", "1.2 GB".
func Amount(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 999.5 && i < len(units)-1 {
		v /= 1000
		i++
	}
	if i == 0 || v >= 9.95 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// grouped prints a number with commas: 173,792.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// seconds prints milliseconds as "0.4 s".
func seconds(ms int64) string { return fmt.Sprintf("%.1f s", float64(ms)/1000) }

// span prints a wait: "15 s", "3 minutes".
func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(time.Second)/time.Second))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Round(time.Minute)/time.Minute))
	}
	return fmt.Sprintf("%d hours", int(d.Round(time.Hour)/time.Hour))
}

// asking says who asked, and where.
func asking(d store.Detail) string {
	who := platform(d) + " firmware"
	if d.IPXE {
		who = "iPXE"
		if d.Firmware != "" {
			who += " on " + platform(d)
		}
	}
	if d.Interface != "" {
		who += " asked on " + d.Interface
	} else {
		who += " asked"
	}
	if d.Relay != "" {
		who += " through the relay " + d.Relay
	}
	if d.Port != "" {
		who += ", " + d.Port
	}
	return who
}
