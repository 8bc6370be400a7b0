/*
 * A client that does what the stock one does not: login TRAP PORT LISTED OTHER
 * logs in with the key file LISTED, as the trap says, and prints what "whoami"
 * gives. It needs libssh.
 */
#include <libssh/libssh.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(ssh_session session, const char *what)
{
	fprintf(stderr, "%s: %s\n", what, ssh_get_error(session));
	exit(1);
}

static ssh_key load(const char *path)
{
	ssh_key key;

	if (ssh_pki_import_privkey_file(path, NULL, NULL, NULL, &key) != SSH_OK) {
		fprintf(stderr, "cannot read %s\n", path);
		exit(1);
	}
	return key;
}

int main(int argc, char **argv)
{
	unsigned int port;
	int no = 0, granted, n;
	char answer[256];
	ssh_session session = ssh_new();
	ssh_channel channel;
	ssh_key listed, other, listed_public, other_public;

	if (argc != 5)
		return 2;
	port = atoi(argv[2]);
	listed = load(argv[3]);
	other = load(argv[4]);
	ssh_pki_export_privkey_to_pubkey(listed, &listed_public);
	ssh_pki_export_privkey_to_pubkey(other, &other_public);
	ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &no);
	ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
	ssh_options_set(session, SSH_OPTIONS_PORT, &port);
	ssh_options_set(session, SSH_OPTIONS_USER, "signer");
	if (ssh_connect(session) != SSH_OK)
		die(session, "connecting");
	if (strcmp(argv[1], "no-key") == 0) {
		granted = ssh_userauth_none(session, NULL);
	} else if (strcmp(argv[1], "two-users") == 0) {
		ssh_userauth_try_publickey(session, "signer", listed_public);
		granted = ssh_userauth_publickey(session, "root", listed);
	} else if (strcmp(argv[1], "root-first") == 0) {
		ssh_userauth_publickey(session, "root", listed);
		granted = ssh_userauth_publickey(session, "signer", listed);
	} else {
		/* Offers a key and does not sign with it. */
		if (strcmp(argv[1], "offered-key") == 0)
			ssh_userauth_try_publickey(session, NULL, other_public);
		granted = ssh_userauth_publickey(session, NULL, listed);
	}
	if (granted != SSH_AUTH_SUCCESS)
		die(session, "logging in");
	channel = ssh_channel_new(session);
	if (ssh_channel_open_session(channel) != SSH_OK || ssh_channel_request_exec(channel, "whoami") != SSH_OK)
		die(session, "asking");
	while ((n = ssh_channel_read(channel, answer, sizeof answer, 0)) > 0)
		fwrite(answer, 1, n, stdout);
	ssh_disconnect(session);
	return 0;
}
