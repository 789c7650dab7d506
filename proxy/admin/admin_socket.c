#include "admin/admin_internal.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG	  16
#define USERS	  "/etc/passwd"
#define USER_LINE 1024

/* Why nobody can listen there now, or nothing. */
static int
remove_stale(const struct sockaddr_un *sun, struct err *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;
	int rc = 0;

	if (fd == -1 || lstat(sun->sun_path, &st) == -1) {
		rc = fd == -1 || errno != ENOENT
			 ? err_set_errno(err, "admin.socket: %s", sun->sun_path)
			 : 0;
	} else if (!S_ISSOCK(st.st_mode)) {
		rc = err_set(err, "admin.socket: %s is there, and no socket", sun->sun_path);
	} else if (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0 ||
		   errno != ECONNREFUSED) {
		rc = err_set(err, "admin.socket: %s is in use by another process", sun->sun_path);
	} else if (unlink(sun->sun_path) == -1) {
		rc = err_set_errno(err, "admin.socket: remove the stale %s", sun->sun_path);
	}
	if (fd != -1)
		close(fd);
	return rc;
}

int
admin_socket_bind(const char *path, struct err *err)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(sun.sun_path))
		return err_set(err, "admin.socket: %s: a socket's path has at most %zu bytes", path,
		    sizeof(sun.sun_path) - 1);
	memcpy(sun.sun_path, path, strlen(path) + 1);
	if (remove_stale(&sun, err) == -1)
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Nobody can connect before listen, so the mode is right from the start. */
	if (fd == -1 || bind(fd, (const struct sockaddr *)&sun, sizeof(sun)) == -1 ||
	    chmod(path, 0600) == -1 || listen(fd, BACKLOG) == -1) {
		err_set_errno(err, "admin.socket: listen on %s", path);
		if (fd != -1)
			close(fd);
		return -1;
	}
	return fd;
}

/* From the file alone: a directory service may answer late, and the loop must not wait. */
static void
find_name(uid_t uid, char *out, size_t n)
{
	char line[USER_LINE];
	struct passwd entry, *found;
	FILE *users = fopen(USERS, "re");

	snprintf(out, n, "uid:%lu", (unsigned long)uid);
	while (users != NULL && fgetpwent_r(users, &entry, line, sizeof(line), &found) == 0) {
		if (entry.pw_uid != uid)
			continue;
		snprintf(out, n, "%s", entry.pw_name);
		break;
	}
	if (users != NULL)
		fclose(users);
}

int
admin_socket_peer(int fd, struct admin_peer *out)
{
	struct ucred who;
	socklen_t n = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == -1)
		return -1;
	*out = (struct admin_peer){ .uid = who.uid, .pid = who.pid };
	find_name(who.uid, out->name, sizeof(out->name));
	return 0;
}
