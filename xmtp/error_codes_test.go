package xmtp

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/google/go-cmp/cmp"

	"github.com/go-xmtp/go-xmtp/content"
	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/protocol"
)

// ofPackage are all exported errors of the package by name: sentinels and types.
var ofPackage = map[string]struct {
	err       error
	code      string
	retryable bool
}{
	"AlreadyAssociatedError":  {&AlreadyAssociatedError{}, "AccountAlreadyAssociatedError", false},
	"InstallationLimitError":  {&InstallationLimitError{}, "IdentityError::TooManyInstallations", false},
	"NotAddedError":           {&NotAddedError{Users: []NotAdded{{Reason: ErrNoKeyPackage}}}, "GroupError::FailedToVerifyInstallations", false},
	"RateLimitError":          {&RateLimitError{reason: errors.New("no")}, "ApiError::Api", true},
	"ErrClosed":               {ErrClosed, "", false},
	"ErrDamaged":              {ErrDamaged, "StorageError::DbDeserialize", false},
	"ErrDirectMessage":        {ErrDirectMessage, "GroupError::MetadataPermissionsError", false},
	"ErrDiskFault":            {ErrDiskFault, "StorageError::DieselResult", true},
	"ErrDiskFull":             {ErrDiskFull, "StorageError::DieselResult", true},
	"ErrForeign":              {ErrForeign, "PlatformStorageError::SqlCipherKeyIncorrect", false},
	"ErrInUse":                {ErrInUse, "PlatformStorageError::DatabaseLocked", true},
	"ErrInboxLogFull":         {ErrInboxLogFull, "ApiError::Api", false},
	"ErrInvalidInbox":         {ErrInvalidInbox, "ClientError::Association", false},
	"ErrInvalidPasskey":       {ErrInvalidPasskey, "ConversionError::InvalidPublicKey", false},
	"ErrInvalidPolicy":        {ErrInvalidPolicy, "GroupError::MetadataPermissionsError", false},
	"ErrInvalidPrivateKey":    {ErrInvalidPrivateKey, "", false},
	"ErrKeyFile":              {ErrKeyFile, "NotFound::CipherSalt", false},
	"ErrNewer":                {ErrNewer, "StorageError::MigrationError", false},
	"ErrNoInbox":              {ErrNoInbox, "GroupError::AddressNotFound", false},
	"ErrNoInstallation":       {ErrNoInstallation, "GroupError::FailedToVerifyInstallations", false},
	"ErrNoKeyPackage":         {ErrNoKeyPackage, "GroupError::FailedToVerifyInstallations", false},
	"ErrNodeAnswer":           {ErrNodeAnswer, "", true},
	"ErrNodeOrder":            {ErrNodeOrder, "", true},
	"ErrNotFound":             {ErrNotFound, "NotFound::GroupById", false},
	"ErrNotPermitted":         {ErrNotPermitted, "CommitValidationError::InsufficientPermissions", false},
	"ErrNotPublished":         {ErrNotPublished, "GroupError::SyncFailedToWait", true},
	"ErrNotRecovery":          {ErrNotRecovery, "AssociationError::MissingExistingMember", false},
	"ErrNotVisible":           {ErrNotVisible, "", true},
	"ErrOnlyMember":           {ErrOnlyMember, "GroupError::LeaveCantProcessed", false},
	"ErrOtherWallet":          {ErrOtherWallet, "IdentityError::InboxIdMismatch", false},
	"ErrPaused":               {ErrPaused, "GroupError::GroupPausedUntilUpdate", false},
	"ErrReadOnly":             {ErrReadOnly, "StorageError::DieselResult", true},
	"ErrRefused":              {ErrRefused, "GroupError::Sync", false},
	"ErrRemoved":              {ErrRemoved, "GroupError::GroupInactive", false},
	"ErrRevoked":              {ErrRevoked, "", false},
	"ErrStateRolledBack":      {ErrStateRolledBack, "", false},
	"ErrStreamInUse":          {ErrStreamInUse, "", false},
	"ErrSuperAdmin":           {ErrSuperAdmin, "GroupError::LeaveCantProcessed", false},
	"ErrTooLong":              {ErrTooLong, "GroupError::TooManyCharacters", false},
	"ErrTooManyInstallations": {ErrTooManyInstallations, "IdentityError::TooManyInstallations", false},
	"ErrTooManyMembers":       {ErrTooManyMembers, "GroupError::UserLimitExceeded", false},
	"ErrWrongInbox":           {ErrWrongInbox, "", false},
	"ErrWrongKey":             {ErrWrongKey, "PlatformStorageError::SqlCipherKeyIncorrect", false},
}

func TestErrorCodes(t *testing.T) {
	for name, c := range ofPackage {
		for _, err := range []error{c.err, fmt.Errorf("xmtp: doing: %w", c.err), errors.Join(errors.New("other"), c.err)} {
			if code, retryable := ErrorCode(err), IsRetryable(err); code != c.code || retryable != c.retryable {
				t.Errorf("%s: %q, %v; want %q, %v", name, code, retryable, c.code, c.retryable)
			}
		}
	}
}

// The table of docs/messages.md has them all.
func TestErrorCodesAreDocumented(t *testing.T) {
	text := string(must(os.ReadFile("../docs/messages.md"))(t))
	for name, c := range ofPackage {
		row := regexp.MustCompile("(?m)^\\| .*`\\*?" + name + "`.*$").FindString(text)
		if !strings.Contains(row, c.code) || strings.HasSuffix(row, "| |") == c.retryable {
			t.Errorf("%s has %q, retryable: %v; the table says %q", name, c.code, c.retryable, row)
		}
	}
}

// Errors as they come, of several that say something.
func TestErrorCodesOfWrappedErrors(t *testing.T) {
	unavailable := fmt.Errorf("publishing: %w", status.Error(codes.Unavailable, "gone"))
	for name, c := range map[string]struct {
		err       error
		code      string
		retryable bool
	}{
		"nil":                       {nil, "", false},
		"another error":             {errors.New("another"), "", false},
		"removed while sending":     {fmt.Errorf("%w: %w", ErrRefused, ErrRemoved), "GroupError::GroupInactive", false},
		"not permitted":             {fmt.Errorf("%w: %w", ErrRefused, protocol.ErrNotPermitted), "CommitValidationError::InsufficientPermissions", false},
		"rolled back":               {fmt.Errorf("%w: %w", ErrRefused, ErrStateRolledBack), "GroupError::Sync", false},
		"paused":                    {paused(&protocol.VersionError{Required: "9.0.0"}), "GroupError::GroupPausedUntilUpdate", false},
		"our own version":           {&protocol.VersionError{Required: "9.0.0"}, "GroupError::GroupPausedUntilUpdate", false},
		"the node can't be reached": {fmt.Errorf("%w: %w", ErrNotPublished, unavailable), "GroupError::SyncFailedToWait", true},
		"the disk is full":          {fmt.Errorf("%w: %w", ErrNotPublished, ErrDiskFull), "StorageError::DieselResult", true},
		"a call failed":             {unavailable, "ApiError::Api", true},
		"a call was refused":        {status.Error(codes.InvalidArgument, "no"), "ApiError::Api", false},
		"too late":                  {fmt.Errorf("%w: %w", ErrNotPublished, context.DeadlineExceeded), "GroupError::SyncFailedToWait", true},
		"only too late":             {context.DeadlineExceeded, "", true},
		"no such message":           {errNoMessage, "NotFound::MessageById", false},
		"no such direct message":    {errNoDM, "NotFound::DmByInbox", false},
		"leaving a direct message":  {errLeaveDM, "GroupError::LeaveCantProcessed", false},
		"a verdict on an inbox":     {fmt.Errorf("%w: %w", ErrInvalidInbox, identity.ErrReplay), "AssociationError::Replay", false},
		"no chain":                  {identity.ErrVerifierUnavailable, "SignatureError::VerifierError", true},
		"content without type":      {content.ErrNoType, "MissingContentTypeError", false},
		"content of unknown type":   {content.ErrUnknownType, "CodecError::CodecNotFound", false},
		"content of another type":   {content.ErrOtherType, "CodecError::InvalidContentType", false},
		"malformed content":         {content.ErrMalformed, "CodecError::Decode", false},
	} {
		if code, retryable := ErrorCode(c.err), IsRetryable(c.err); code != c.code || retryable != c.retryable {
			t.Errorf("%s: %q, %v; want %q, %v", name, code, retryable, c.code, c.retryable)
		}
	}
}

// Every error that the package exports is in the table: who adds one decides on its code.
func TestEveryErrorHasItsCode(t *testing.T) {
	sources := must(filepath.Glob("*.go"))(t)
	var exported []string
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		file := must(parser.ParseFile(token.NewFileSet(), source, nil, 0))(t)
		for _, d := range file.Decls {
			declaration, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range declaration.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					for _, name := range s.Names {
						if strings.HasPrefix(name.Name, "Err") {
							exported = append(exported, name.Name)
						}
					}
				case *ast.TypeSpec:
					if s.Name.IsExported() && strings.HasSuffix(s.Name.Name, "Error") {
						exported = append(exported, s.Name.Name)
					}
				}
			}
		}
	}
	slices.Sort(exported)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(ofPackage)), exported); diff != "" {
		t.Errorf("the table (-) and the package (+):\n%s", diff)
	}
}
