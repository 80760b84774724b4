/* address.c - socket addresses by their meaning
 *
 * Theory of operation: a sockaddr says where in one of several spellings. struct mfd_address has one
 * spelling for each meaning, so that equality is comparison: IPv4 as AF_INET even when a program
 * wrote it v4-mapped on an AF_INET6 socket, the port in host order, a scope id only where one is needed.
 * Going back, an address is written in the family of the socket that is to use it.
 * Source: ip(7), ipv6(7), RFC 4291 sections 2.5.5.2 and 2.7, net/ipv6.h (__ipv6_addr_needs_scope_id). */
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* What the kernel accepts as the shortest AF_INET6 address (SIN6_LEN_RFC2133, net/ipv6.h). */
#define SIN6_LEN_MIN 24

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* Does it mean another place on each interface? Of other addresses the kernel ignores the scope id. */
static bool needs_scope(const struct in6_addr *address)
{
    return IN6_IS_ADDR_LINKLOCAL(address) || IN6_IS_ADDR_MC_LINKLOCAL(address) ||
           IN6_IS_ADDR_MC_NODELOCAL(address);
}

/* mfd_address_parse - the meaning of a sockaddr that a program gave
 * Return: 0; -EINVAL when it is too short for its family; -EAFNOSUPPORT when it is not an internet
 * address. */
int mfd_address_parse(const union mfd_sockaddr *sockaddr, socklen_t length,
                      struct mfd_address *ret_address)
{
    struct mfd_address address = {0};

    if (length < sizeof(sa_family_t))
        return -EINVAL;
    switch (sockaddr->any.sa_family) {
    case AF_INET:
        if (length < sizeof(struct sockaddr_in))
            return -EINVAL;
        address.family = AF_INET;
        address.port = ntohs(sockaddr->in.sin_port);
        memcpy(address.bytes, &sockaddr->in.sin_addr, 4);
        break;
    case AF_INET6:
        if (length < SIN6_LEN_MIN)
            return -EINVAL;
        address.port = ntohs(sockaddr->in6.sin6_port);
        if (memcmp(&sockaddr->in6.sin6_addr, mapped_prefix, sizeof(mapped_prefix)) == 0) {
            address.family = AF_INET;
            memcpy(address.bytes, sockaddr->in6.sin6_addr.s6_addr + sizeof(mapped_prefix), 4);
            break;
        }
        address.family = AF_INET6;
        if (length >= sizeof(struct sockaddr_in6) && needs_scope(&sockaddr->in6.sin6_addr))
            address.scope_id = sockaddr->in6.sin6_scope_id;
        memcpy(address.bytes, &sockaddr->in6.sin6_addr, 16);
        break;
    default:
        return -EAFNOSUPPORT;
    }
    *ret_address = address;
    return 0;
}

/* mfd_address_format - write an address for a socket of this domain
 * @domain: AF_INET or AF_INET6; an IPv4 address is written v4-mapped for AF_INET6
 * Return: 0; -EAFNOSUPPORT when the domain cannot express the address. */
int mfd_address_format(const struct mfd_address *address, int domain,
                       union mfd_sockaddr *ret_sockaddr, socklen_t *ret_length)
{
    if (domain == AF_INET && address->family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(address->port)};

        memcpy(&in.sin_addr, address->bytes, 4);
        ret_sockaddr->in = in;
        *ret_length = sizeof(in);
        return 0;
    }
    if (domain == AF_INET6 && (address->family == AF_INET || address->family == AF_INET6)) {
        struct sockaddr_in6 in6 = {
            .sin6_family = AF_INET6,
            .sin6_port = htons(address->port),
            .sin6_scope_id = address->scope_id,
        };

        if (address->family == AF_INET6) {
            memcpy(&in6.sin6_addr, address->bytes, 16);
        } else {
            memcpy(&in6.sin6_addr, mapped_prefix, sizeof(mapped_prefix));
            memcpy(in6.sin6_addr.s6_addr + sizeof(mapped_prefix), address->bytes, 4);
        }
        ret_sockaddr->in6 = in6;
        *ret_length = sizeof(in6);
        return 0;
    }
    return -EAFNOSUPPORT;
}

bool mfd_address_is_wildcard(const struct mfd_address *address)
{
    static const uint8_t zero[16];

    return memcmp(address->bytes, zero, address->family == AF_INET6 ? 16 : 4) == 0;
}

bool mfd_address_is_same(const struct mfd_address *a, const struct mfd_address *b)
{
    return a->port == b->port && mfd_address_same_ip(a, b);
}

bool mfd_address_same_ip(const struct mfd_address *a, const struct mfd_address *b)
{
    return a->family == b->family && a->scope_id == b->scope_id &&
           memcmp(a->bytes, b->bytes, a->family == AF_INET6 ? 16 : 4) == 0;
}

/* mfd_endpoint_is_valid - is it an internet address, or a unix socket's with a name that fits? */
bool mfd_endpoint_is_valid(const struct mfd_endpoint *endpoint)
{
    switch (endpoint->address.family) {
    case AF_INET:
    case AF_INET6:
        return endpoint->path_size == 0 && endpoint->netns < MFD_NETNS_MAX;
    case AF_UNIX:
        return endpoint->netns == MFD_NETNS_OWN && endpoint->path_size > 0 &&
               endpoint->path_size < MFD_UNIX_PATH_MAX;
    default:
        return false;
    }
}
