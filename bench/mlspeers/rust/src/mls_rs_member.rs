//! mls-rs, with AWS-LC.

use mls_rs::client_builder::PaddingMode;
use mls_rs::client_builder::{BaseConfig, WithCryptoProvider, WithIdentityProvider, WithMlsRules};
use mls_rs::group::ReceivedMessage;
use mls_rs::identity::SigningIdentity;
use mls_rs::identity::basic::{BasicCredential, BasicIdentityProvider};
use mls_rs::mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions};
use mls_rs::{CipherSuite, CipherSuiteProvider, Client, CryptoProvider, Group, MlsMessage};
use mls_rs_crypto_awslc::AwsLcCryptoProvider;

use crate::{Bytes, Member, Result};

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

type Config = WithMlsRules<
    DefaultMlsRules,
    WithCryptoProvider<AwsLcCryptoProvider, WithIdentityProvider<BasicIdentityProvider, BaseConfig>>,
>;

struct MlsRs {
    client: Client<Config>,
    group: Option<Group<Config>>,
}

pub fn new(name: &[u8]) -> Result<Box<dyn Member>> {
    let crypto = AwsLcCryptoProvider::new();
    let suite = crypto.cipher_suite_provider(SUITE).ok_or("no suite 1")?;
    let (private, public) = suite.signature_key_generate()?;
    let credential = BasicCredential::new(name.to_vec()).into_credential();
    let rules = DefaultMlsRules::new()
        .with_commit_options(CommitOptions::new().with_path_required(true))
        .with_encryption_options(EncryptionOptions::new(false, PaddingMode::None));
    let client = Client::builder()
        .identity_provider(BasicIdentityProvider::new())
        .crypto_provider(crypto)
        .mls_rules(rules)
        .signing_identity(SigningIdentity::new(credential, public), private, SUITE)
        .build();
    Ok(Box::new(MlsRs { client, group: None }))
}

impl MlsRs {
    fn group(&mut self) -> Result<&mut Group<Config>> {
        Ok(self.group.as_mut().ok_or("in no group")?)
    }
}

impl Member for MlsRs {
    fn key_package(&mut self) -> Result<Bytes> {
        let message = self
            .client
            .generate_key_package_message(Default::default(), Default::default(), None)?;
        Ok(message.to_bytes()?)
    }

    fn create(&mut self) -> Result<()> {
        self.group = Some(self.client.group_builder()?.build()?);
        Ok(())
    }

    fn join(&mut self, welcome: &[u8]) -> Result<()> {
        let welcome = MlsMessage::from_bytes(welcome)?;
        self.group = Some(self.client.join_group(None, &welcome, None)?.0);
        Ok(())
    }

    fn add(&mut self, key_packages: &[Bytes]) -> Result<Bytes> {
        let group = self.group()?;
        let mut builder = group.commit_builder();
        for key_package in key_packages {
            builder = builder.add_member(MlsMessage::from_bytes(key_package)?)?;
        }
        let made = builder.build()?;
        made.commit_message.to_bytes()?;
        group.apply_pending_commit()?;
        Ok(made.welcome_messages.first().ok_or("no welcome")?.to_bytes()?)
    }

    fn commit(&mut self) -> Result<Bytes> {
        let group = self.group()?;
        let made = group.commit_builder().build()?;
        group.apply_pending_commit()?;
        Ok(made.commit_message.to_bytes()?)
    }

    fn process_commit(&mut self, commit: &[u8]) -> Result<()> {
        match self
            .group()?
            .process_incoming_message(MlsMessage::from_bytes(commit)?)?
        {
            ReceivedMessage::Commit(_) => Ok(()),
            _ => Err("not a commit".into()),
        }
    }

    fn encrypt(&mut self, text: &[u8]) -> Result<Bytes> {
        let message = self.group()?.encrypt_application_message(text, Default::default())?;
        Ok(message.to_bytes()?)
    }

    fn decrypt(&mut self, message: &[u8]) -> Result<Bytes> {
        match self
            .group()?
            .process_incoming_message(MlsMessage::from_bytes(message)?)?
        {
            ReceivedMessage::ApplicationMessage(message) => Ok(message.data().to_vec()),
            _ => Err("not an application message".into()),
        }
    }
}
