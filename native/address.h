/* address.h - socket addresses by their meaning (address.c) */
#ifndef MESHFD_ADDRESS_H
#define MESHFD_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "wire.h"

/* The kernel never takes more than this from a program (socket.h: struct sockaddr_storage). */
#define MFD_SOCKADDR_MAX 128

union mfd_sockaddr {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    uint8_t bytes[MFD_SOCKADDR_MAX];
};

int mfd_address_parse(const union mfd_sockaddr *sockaddr, socklen_t length,
                      struct mfd_address *ret_address);
int mfd_address_format(const struct mfd_address *address, int domain,
                       union mfd_sockaddr *ret_sockaddr, socklen_t *ret_length);
bool mfd_address_is_wildcard(const struct mfd_address *address);
bool mfd_endpoint_is_valid(const struct mfd_endpoint *endpoint);
bool mfd_address_is_same(const struct mfd_address *a, const struct mfd_address *b);
bool mfd_address_same_ip(const struct mfd_address *a, const struct mfd_address *b);

#endif
