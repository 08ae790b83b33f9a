package api

import (
	"context"
	"encoding/hex"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// maxKeyPackageBytes is some forty times what clients upload. Whoever adds
// members fetches many at once, and all of them have to fit into one response.
const maxKeyPackageBytes = 64 << 10

func (s *mlsServer) UploadKeyPackage(ctx context.Context, req *mlsapi.UploadKeyPackageRequest) (*emptypb.Empty, error) {
	if _, err := s.upload(ctx, req.KeyPackage); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *mlsServer) RegisterInstallation(ctx context.Context, req *mlsapi.RegisterInstallationRequest) (*mlsapi.RegisterInstallationResponse, error) {
	key, err := s.upload(ctx, req.KeyPackage)
	if err != nil {
		return nil, err
	}
	return &mlsapi.RegisterInstallationResponse{InstallationKey: key}, nil
}

// upload takes key packages also of installations that the inbox doesn't list:
// clients upload before they publish the update that says so.
func (s *mlsServer) upload(ctx context.Context, upload *mlsapi.KeyPackageUpload) (installation []byte, err error) {
	if err := s.writable(ctx, 1); err != nil {
		return nil, err
	}
	if upload == nil {
		return nil, invalid("no key package")
	}
	if n := len(upload.KeyPackageTlsSerialized); n > maxKeyPackageBytes {
		return nil, invalid("invalid key package: %d bytes: at most %d are taken", n, maxKeyPackageBytes)
	}
	info, err := s.verify(ctx, upload.KeyPackageTlsSerialized)
	if err != nil {
		return nil, err
	}
	listed := false
	inbox, err := hex.DecodeString(info.InboxID)
	if err == nil {
		if listed, err = s.Index.HasMember(string(inbox), identity.Installation(info.InstallationKey[:])); err != nil {
			return nil, s.reading(ctx, err)
		}
	}
	if err := s.Limiter.inbox(ctx, info.InboxID, !listed, len(upload.KeyPackageTlsSerialized)); err != nil {
		return nil, err
	}
	outcomes, err := s.append(ctx, &order.Record{
		Topic:   order.Topic{Kind: order.KeyPackage, ID: string(info.InstallationKey[:])},
		Facts:   order.KeyPackageFacts{NotBefore: info.Lifetime.NotBefore}.Append(nil),
		Payload: upload.KeyPackageTlsSerialized,
	})
	if err != nil {
		return nil, err
	}
	if err := outcomes[0].Err; err != nil {
		return nil, invalid("invalid key package: %v", err)
	}
	s.Limiter.inboxWrote(info.InboxID, !listed, len(upload.KeyPackageTlsSerialized))
	return info.InstallationKey[:], nil
}

// verify checks a key package, when it is its turn.
func (s *mlsServer) verify(ctx context.Context, keyPackage []byte) (*identity.KeyPackageInfo, error) {
	done, err := s.Limiter.validate(ctx, len(keyPackage))
	if err != nil {
		return nil, err
	}
	defer done()
	info, err := identity.VerifyKeyPackage(keyPackage, s.Now())
	if err != nil {
		return nil, invalid("invalid identity: validation failed with error %v", err)
	}
	return info, nil
}

func (s *mlsServer) FetchKeyPackages(ctx context.Context, req *mlsapi.FetchKeyPackagesRequest) (*mlsapi.FetchKeyPackagesResponse, error) {
	if err := s.readable(ctx, len(req.InstallationKeys)); err != nil {
		return nil, err
	}
	response := &mlsapi.FetchKeyPackagesResponse{
		KeyPackages: make([]*mlsapi.FetchKeyPackagesResponse_KeyPackage, len(req.InstallationKeys)),
	}
	size := 0
	for i, key := range req.InstallationKeys {
		response.KeyPackages[i] = &mlsapi.FetchKeyPackagesResponse_KeyPackage{}
		record, err := s.Index.KeyPackage(ctx, string(key))
		if err != nil {
			return nil, s.reading(ctx, err)
		}
		if record == nil {
			continue
		}
		if size += len(record.Payload); size > pageBytes {
			return nil, invalid("these key packages are more than %d bytes: ask for fewer", pageBytes)
		}
		response.KeyPackages[i].KeyPackageTlsSerialized = record.Payload
	}
	s.Limiter.answered(ctx, size)
	return response, nil
}
