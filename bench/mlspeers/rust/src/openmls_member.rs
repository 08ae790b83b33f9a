//! OpenMLS, with a provider of cryptography and storage in memory.

use openmls::prelude::tls_codec::{Deserialize, Serialize};
use openmls::prelude::*;
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use crate::{Bytes, Member, Result};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A store in memory, which the providers have in common.
type Store = <OpenMlsRustCrypto as OpenMlsProvider>::StorageProvider;

struct OpenMls<P> {
    provider: P,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
    group: Option<MlsGroup>,
}

pub fn new<P: OpenMlsProvider<StorageProvider = Store> + Default + 'static>(name: &[u8]) -> Result<Box<dyn Member>> {
    let signer = SignatureKeyPair::new(SUITE.signature_algorithm())?;
    let credential = CredentialWithKey {
        credential: BasicCredential::new(name.to_vec()).into(),
        signature_key: signer.to_public_vec().into(),
    };
    Ok(Box::new(OpenMls {
        provider: P::default(),
        signer,
        credential,
        group: None,
    }))
}

impl<P: OpenMlsProvider<StorageProvider = Store>> OpenMls<P> {
    fn process(&mut self, message: &[u8]) -> Result<ProcessedMessageContent> {
        let group = self.group.as_mut().ok_or("in no group")?;
        let message = MlsMessageIn::tls_deserialize_exact(message)?.try_into_protocol_message()?;
        Ok(group.process_message(&self.provider, message)?.into_content())
    }
}

impl<P: OpenMlsProvider<StorageProvider = Store>> Member for OpenMls<P> {
    fn key_package(&mut self) -> Result<Bytes> {
        let made = KeyPackage::builder().build(SUITE, &self.provider, &self.signer, self.credential.clone())?;
        Ok(MlsMessageOut::from(made.key_package().clone()).tls_serialize_detached()?)
    }

    fn create(&mut self) -> Result<()> {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        self.group = Some(MlsGroup::new(
            &self.provider,
            &self.signer,
            &config,
            self.credential.clone(),
        )?);
        Ok(())
    }

    fn join(&mut self, welcome: &[u8]) -> Result<()> {
        let MlsMessageBodyIn::Welcome(welcome) = MlsMessageIn::tls_deserialize_exact(welcome)?.extract() else {
            return Err("not a welcome".into());
        };
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None)?;
        self.group = Some(staged.into_group(&self.provider)?);
        Ok(())
    }

    fn add(&mut self, key_packages: &[Bytes]) -> Result<Bytes> {
        let mut list = Vec::with_capacity(key_packages.len());
        for key_package in key_packages {
            let MlsMessageBodyIn::KeyPackage(key_package) = MlsMessageIn::tls_deserialize_exact(key_package)?.extract()
            else {
                return Err("not a key package".into());
            };
            list.push(key_package.validate(self.provider.crypto(), ProtocolVersion::Mls10)?);
        }
        let group = self.group.as_mut().ok_or("in no group")?;
        let (commit, welcome, _) = group.add_members(&self.provider, &self.signer, &list)?;
        commit.tls_serialize_detached()?;
        group.merge_pending_commit(&self.provider)?;
        Ok(welcome.tls_serialize_detached()?)
    }

    fn commit(&mut self) -> Result<Bytes> {
        let group = self.group.as_mut().ok_or("in no group")?;
        let made = group.self_update(&self.provider, &self.signer, LeafNodeParameters::default())?;
        group.merge_pending_commit(&self.provider)?;
        Ok(made.into_commit().tls_serialize_detached()?)
    }

    fn process_commit(&mut self, commit: &[u8]) -> Result<()> {
        let ProcessedMessageContent::StagedCommitMessage(staged) = self.process(commit)? else {
            return Err("not a commit".into());
        };
        let group = self.group.as_mut().ok_or("in no group")?;
        Ok(group.merge_staged_commit(&self.provider, *staged)?)
    }

    fn encrypt(&mut self, text: &[u8]) -> Result<Bytes> {
        let group = self.group.as_mut().ok_or("in no group")?;
        let message = group.create_message(&self.provider, &self.signer, text)?;
        Ok(message.tls_serialize_detached()?)
    }

    fn decrypt(&mut self, message: &[u8]) -> Result<Bytes> {
        match self.process(message)? {
            ProcessedMessageContent::ApplicationMessage(message) => Ok(message.into_bytes()),
            _ => Err("not an application message".into()),
        }
    }
}
