/*
 * admin_internal: what the files of module admin share.
 *
 * admin.c is the listeners and their pages, admin_socket.c the Unix socket and who is at its other
 * end.
 */
#ifndef KEYTRAIL_PROXY_ADMIN_INTERNAL_H
#define KEYTRAIL_PROXY_ADMIN_INTERNAL_H

#include "admin/admin.h"

/* Listen on the path, mode 0600.  A socket that a dead process left is replaced.  The descriptor,
 * non-blocking, or -1. */
int admin_socket_bind(const char *path, struct err *err);

/* Whose process is connected to fd. */
int admin_socket_peer(int fd, struct admin_peer *out);

#endif
