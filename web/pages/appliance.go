package pages

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/web/pages/typed"
)

// SettingRows are the settings as they stand.
type SettingRows interface {
	store.SettingRows
	// SettingRevision rises with every change of a setting.
	SettingRevision(ctx context.Context, key string) (int64, error)
}

// Certificate is what the admin port shows of itself.
type Certificate struct {
	On          bool // HTTPS is spoken
	SelfMade    bool
	File        string // that it is read from
	Ends        time.Time
	Fingerprint string // SHA-256
}

type applianceView struct {
	Is       map[store.SettingKey]settingView
	Ends     []outcomeTick
	Goldens  []store.Volume
	Room     store.Space
	Folders  []string
	Secure   Certificate
	Over     bool // the certificate has run out
	NoSecret string
}

// settingView is a setting with the revision that a form saw.
type settingView struct {
	store.Setting
	Revision int64
}

// On reports whether a setting that is on or off is on.
func (v settingView) On() bool { return v.Value == "on" }

// outcomeTick is an end of a boot that may be told.
type outcomeTick struct {
	Outcome store.Outcome
	Text    string
	On      bool
}

// endWords says how a boot ended.
func endWords(o store.Outcome) string {
	switch o {
	case store.OutcomeFailed:
		return "it failed"
	case store.OutcomeUp:
		return "the system came up"
	case store.OutcomeUpUnconfirmed:
		return "it is probably up: its volume is read, and nothing was reported"
	case store.OutcomeNotEnrolled:
		return "the machine was not enrolled, and stopped waiting"
	}
	return string(o)
}

// Setting finds one for a template.
func (v applianceView) Setting(key string) settingView { return v.Is[store.SettingKey(key)] }

// appliance shows what can be chosen of the appliance as a whole.
func (s *site) appliance(w http.ResponseWriter, r *http.Request) {
	s.showAppliance(w, r, http.StatusOK, page{})
}

func (s *site) showAppliance(w http.ResponseWriter, r *http.Request, status int, p page) {
	v, err := s.applianceView(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	p.Title, p.Nav, p.Data = "Appliance", "settings", v
	s.render(w, r, status, "appliance", p)
}

func (s *site) applianceView(ctx context.Context) (applianceView, error) {
	v := applianceView{Is: map[store.SettingKey]settingView{}, Folders: s.Storage.ImageFolders(), Secure: s.Certificate(), NoSecret: typed.NoSecret}
	v.Over = v.Secure.On && !v.Secure.Ends.After(s.Now())
	all, err := store.Settings(ctx, s.Settings)
	if err != nil {
		return v, err
	}
	for _, one := range all {
		revision, err := s.Settings.SettingRevision(ctx, string(one.Key))
		if err != nil {
			return v, err
		}
		v.Is[one.Key] = settingView{one, revision}
	}
	told, err := store.ParseOutcomes(v.Is[store.SettingWebhookOn].Value)
	if err != nil {
		return v, err
	}
	for _, o := range store.Outcomes() {
		if o != store.OutcomeRunning {
			v.Ends = append(v.Ends, outcomeTick{o, endWords(o), slices.Contains(told, o)})
		}
	}
	if v.Goldens, _, err = s.goldens(ctx); err != nil {
		return v, err
	}
	slices.SortFunc(v.Goldens, func(a, b store.Volume) int { return int(a.ID - b.ID) })
	v.Room, err = s.Space(ctx)
	return v, err
}

// chooseSettings saves a card. All of it is looked at before anything changes.
func (s *site) chooseSettings(w http.ResponseWriter, r *http.Request) {
	card, err := typed.NamedCard(chi.URLParam(r, "card"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	n, err := s.putSettings(r, card)
	if err != nil {
		status, text := told(r, err)
		s.showAppliance(w, r, status, page{Error: text})
		return
	}
	if n == 0 {
		s.showAppliance(w, r, http.StatusOK, page{Said: "That is how it was: nothing changed."})
		return
	}
	http.Redirect(w, r, "/settings/appliance#"+card.Name, http.StatusSeeOther)
}

// putSettings changes those settings of a card that the form has otherwise, and
// returns how many.
func (s *site) putSettings(r *http.Request, card typed.Card) (int, error) {
	if err := r.ParseForm(); err != nil {
		return 0, store.Invalid("", "the form cannot be read")
	}
	all, err := store.Settings(r.Context(), s.Settings)
	if err != nil {
		return 0, err
	}
	var change []store.Setting
	var wrong []error
	for _, key := range card.Keys {
		at := slices.IndexFunc(all, func(o store.Setting) bool { return o.Key == key })
		if at < 0 {
			return 0, store.NoSetting(string(key))
		}
		value, changed, err := typed.Setting(key, all[at].Value, r.PostForm)
		if err != nil {
			wrong = append(wrong, err)
		}
		if changed {
			change = append(change, store.Setting{Key: key, Value: value})
		}
	}
	if len(wrong) > 0 {
		return 0, errors.Join(wrong...)
	}
	for _, c := range change {
		ctx := r.Context()
		if seen, err := strconv.ParseInt(r.PostFormValue("revision-"+string(c.Key)), 10, 64); err == nil && seen > 0 {
			ctx = store.Expecting(ctx, store.Expectation{Noun: "setting", Key: string(c.Key), Revision: seen})
		}
		if err := s.Volumes.PutSetting(ctx, by(r), c); err != nil {
			return 0, typed.Named(string(c.Key), err)
		}
	}
	return len(change), nil
}
