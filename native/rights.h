/* rights.h - a packet on a unix socket, with files or without (rights.c) */
#ifndef MESHFD_RIGHTS_H
#define MESHFD_RIGHTS_H

#include <stddef.h>
#include <sys/types.h>

int mfd_rights_send(int channel, const void *data, size_t size, const int *fds, size_t n_fds,
                    int flags);
ssize_t mfd_rights_receive(int channel, void *data, size_t size, int *ret_fds, size_t *n_fds,
                           int flags);

#endif
