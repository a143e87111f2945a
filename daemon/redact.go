package daemon

import (
	"math"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// lazily compiles a pattern when it is first used: every start of the program would pay
// for all of them, that of a hook too.
func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// secretName matches names of variables whose values are secrets more often than not.
var secretName = lazily(`(?i)token|secret|passw|passphrase|pwd$|^pgpass|api_?key|_key$|^key|key_?id$|private|credential|cookie|auth|session_?key|signing|webhook|_dsn$|connection_?string|bearer|_sas$|jwt|salt|pepper|otp|pin$`)

// notSecretName are names that secretName catches and that hold none.
var notSecretName = map[string]bool{"PWD": true, "OLDPWD": true, "SSH_AUTH_SOCK": true, "XAUTHORITY": true, "GPG_AGENT_INFO": true}

// secretShapes match values by the marks that those who issue them put on.
var secretShapes = []func() *regexp.Regexp{
	lazily(`-----BEGIN [A-Z ]*(PRIVATE KEY|CERTIFICATE|PGP)`),
	lazily(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}`),                                                    // JWT
	lazily(`\b(AKIA|ASIA|AGPA|AROA|AIDA|ANPA)[A-Z0-9]{12,}\b`),                                             // AWS
	lazily(`\b(gh[opusr]_|github_pat_|glpat-|glptt-|gldt-)[A-Za-z0-9_-]{16,}`),                             // GitHub, GitLab
	lazily(`\b(sk|pk|rk|ak)[-_](live|test|ant|proj|or|svcacct|admin)?[-_]?[A-Za-z0-9_-]{16,}`),             // Stripe, model providers
	lazily(`\bxox[abeoprs]-[A-Za-z0-9-]{8,}|\bxapp-[A-Za-z0-9-]{8,}`),                                      // Slack
	lazily(`\bAIza[A-Za-z0-9_-]{20,}|\bya29\.[A-Za-z0-9_-]{8,}|\bGOCSPX-[A-Za-z0-9_-]{8,}`),                // Google
	lazily(`\b(npm_|pypi-|dop_v1_|doo_v1_|shpat_|shpss_|hf_|hvs\.|dapi|SG\.|key-|sq0)[A-Za-z0-9_.-]{16,}`), // npm, PyPI, hosts
	lazily(`\bAGE-SECRET-KEY-1[A-Z0-9]+`),
	lazily(`(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}`),
	lazily(`(?i)(password|passwd|pwd|secret|token|api_?key|access_?key|accountkey|sharedaccesskey|sig)\s*[=:]\s*[^\s;&]{4,}`),
	lazily(`https://(hooks\.slack\.com|discord(app)?\.com/api/webhooks|[a-z0-9.-]*webhook\.office\.com)/`),
	lazily(`\b[0-9]{8,10}:AA[A-Za-z0-9_-]{30,}`), // Telegram
}

var (
	urlInText = lazily(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"']+`)
	uuidShape = lazily(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	opaque    = lazily(`[A-Za-z0-9+_=-]{20,}`)
)

// looksSecret says that a variable must not be kept: its name or its value has the look
// of a secret. It rather holds back one too many.
func looksSecret(name, value string) bool {
	if secretName().MatchString(name) && !notSecretName[strings.ToUpper(name)] {
		return true
	}
	for _, re := range secretShapes {
		if re().MatchString(value) {
			return true
		}
	}
	for _, found := range urlInText().FindAllString(value, -1) {
		// A URL that does not parse may still hold a password before its @.
		u, err := url.Parse(found)
		if err != nil && strings.Contains(found, "@") || err == nil && u.User != nil {
			return true
		}
	}
	return hasRandom(value)
}

// hasRandom finds a long run of letters and digits without the repetitions that words
// have. The parts of absolute paths are let through: build directories carry hashes.
func hasRandom(value string) bool {
	for _, part := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t\n:;,", r) }) {
		if strings.HasPrefix(part, "/") || uuidShape().MatchString(part) {
			continue
		}
		for _, run := range opaque().FindAllString(part, -1) {
			if mixed(run) && entropy(run) >= 3.2 {
				return true
			}
		}
	}
	return false
}

// mixed says that letters and digits take turns, as in a key and not as in a name with a
// date behind it.
func mixed(run string) bool {
	turns, last := 0, byte(0)
	for i := range len(run) {
		var kind byte
		switch c := run[i]; {
		case c >= '0' && c <= '9':
			kind = 'd'
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			kind = 'l'
		default:
			continue
		}
		if last != 0 && kind != last {
			turns++
		}
		last = kind
	}
	return turns >= 4
}

// entropy is Shannon's, in bits a byte: 3 for "abcdefgh", 4 for random hexadecimal digits.
func entropy(s string) float64 {
	var count [256]float64
	for i := range len(s) {
		count[s[i]]++
	}
	var h float64
	for _, n := range count {
		if n > 0 {
			p := n / float64(len(s))
			h -= p * math.Log2(p)
		}
	}
	return h
}
