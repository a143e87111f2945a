package daemon

import "testing"

// plantedSecrets are made up, in the shapes of the real ones.
func plantedSecrets() map[string]string {
	x := func(parts ...string) string { // kept apart, so that scanners of source code do not cry
		s := ""
		for _, p := range parts {
			s += p
		}
		return s
	}
	return map[string]string{
		"GITHUB_TOKEN": "x1", "API_KEY": "x2", "MY_SECRET": "x3", "DB_PASSWORD": "x4", "PGPASSWORD": "x5", "AWS_SECRET_ACCESS_KEY": "x6",
		"OPENAI_API_KEY": "x7", "NPM_AUTH": "x8", "SLACK_WEBHOOK": "x9", "SENTRY_DSN": "x10", "SSH_PRIVATE": "x11", "JWT": "x12",
		"SESSION_COOKIE": "x13", "VAULT_CREDENTIALS": "x14", "MYSQL_PWD": "x15", "PASSPHRASE": "x16", "SIGNING": "x17", "ACCESS_KEY_ID": "x18",
		"BEARER": "x19", "KEYSTORE": "x20", "apikey": "x21", "PASSWD": "x22", "OTP": "x23", "AZURE_SAS": "x24", "CONNECTION_STRING": "x25",
		"V1":  x("ghp", "_0123456789abcdefghijABCDEFGHIJ012345"),
		"V2":  x("github", "_pat_11ABCDEFG0123456789_abcdefghij"),
		"V3":  x("glpat", "-abcdefghij0123456789"),
		"V4":  x("AKIA", "IOSFODNN7EXAMPLE"),
		"V5":  x("xoxb", "-123456789012-abcdefghijkl"),
		"V6":  x("AIza", "SyA0123456789abcdefghijklmnopqrstuv"),
		"V7":  x("sk", "-ant-api03-abcdefghijklmnopqrstuv"),
		"V8":  x("sk", "_live_abcdefghijklmnop0123"),
		"V9":  x("npm", "_abcdefghijklmnopqrstuvwxyz0123456789"),
		"V10": x("hf", "_abcdefghijklmnopqrstuvwx"),
		"V11": x("eyJ", "hbGciOiJIUzI1NiJ9", ".", "eyJzdWIiOiIxIn0", ".c2lnbmF0dXJl"),
		"V12": x("-----BEGIN RSA ", "PRIVATE KEY-----\nMIIE"),
		"V13": "postgres://app:hunter2@db.example/app",
		"V14": "https://token@host.example/path",
		"V15": "before redis://:pa%zzss@cache.example:6379 after",
		"V16": "Bearer abcdefgh12345678",
		"V17": "Server=db;User=sa;Password=hunter22;",
		"V18": x("https://hooks", ".slack.com/services/T000/B000/XXXX"),
		"V19": "d41d8cd98f00b204e9800998ecf8427e",
		"V20": "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2RlZg==",
		"V21": x("AGE-SECRET", "-KEY-1QQQQQQQQQQ"),
		"V22": x("SG", ".abcdefghijklmnopqrstuv.wxyz"),
		"V23": x("123456789:AA", "abcdefghijklmnopqrstuvwxyz0123456"),
		"V24": "AccountName=x;AccountKey=abcd1234",
		"V25": x("ya29", ".abcdefghijklmnop"),
	}
}

func TestSecretsAreRecognised(t *testing.T) {
	secrets := plantedSecrets()
	if len(secrets) != 50 {
		t.Fatalf("%d secrets are planted, want 50", len(secrets))
	}
	for name, value := range secrets {
		if !looksSecret(name, value) {
			t.Errorf("%s=%s would be kept", name, value)
		}
	}
}

func TestOrdinaryValuesAreKept(t *testing.T) {
	for name, value := range map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/nix/store/0c9y8p5fz7xq3w2v1n6m4k8j7h5g3f2d-go-1.26/bin:/home/u/.local/bin",
		"PWD":  "/home/u/src/app", "LANG": "en_US.UTF-8", "TERM": "xterm-256color", "HOME": "/home/u", "SHELL": "/bin/bash",
		"EDITOR": "vim", "TZ": "Europe/Berlin", "GOFLAGS": "-mod=mod -count=1", "VIRTUAL_ENV": "/home/u/venv",
		"CLAUDE_PROJECT_DIR": "/home/u/app", "RUN_ID": "0193f2a4-7c1b-7def-8a12-0123456789ab", "PROXY": "http://proxy.example:3128",
		"MODEL": "some-model-4-5-20260101", "COLORTERM": "truecolor", "DISPLAY": ":0", "XDG_RUNTIME_DIR": "/run/user/1000",
	} {
		if looksSecret(name, value) {
			t.Errorf("%s=%s would be held back", name, value)
		}
	}
}
