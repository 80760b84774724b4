/* known.c - which sockets something is known of, approximately
 *
 * Theory of operation: a bit of a hash of a socket's SO_COOKIE. It says no only of a socket that was never added, or
 * long ago: the bits are cleared by halves, KNOWN_MAX sockets each. It says yes sometimes of one that was not.
 * Limits: the last KNOWN_MAX sockets at least. */
#include <string.h>

#include "meshfd.h"

#define KNOWN_MAX (MFD_KNOWN_BITS / 4) /* fewer than one yes in four is wrong */

static uint64_t *word_of(struct mfd_known *known, unsigned half, uint64_t cookie, uint64_t *ret_bit)
{
    uint64_t hash = cookie * 0x9e3779b97f4a7c15ULL; /* 2^64 / the golden ratio, Knuth vol. 3, 6.4 */

    *ret_bit = 1ULL << (hash >> 58);
    return &known->bits[half][(hash >> 32) % (MFD_KNOWN_BITS / 64)];
}

/* mfd_known_add - it holds of the socket of this cookie */
void mfd_known_add(struct mfd_known *known, uint64_t cookie)
{
    uint64_t bit;

    if (known->n++ == KNOWN_MAX) {
        known->half ^= 1;
        memset(known->bits[known->half], 0, sizeof(known->bits[0]));
        known->n = 1;
    }
    *word_of(known, known->half, cookie, &bit) |= bit;
}

/* mfd_known_has - may it hold of this socket? */
bool mfd_known_has(struct mfd_known *known, int socket_fd)
{
    uint64_t cookie = mfd_socket_cookie(socket_fd);

    for (unsigned half = 0; half < 2; half++) {
        uint64_t bit;

        if ((*word_of(known, half, cookie, &bit) & bit) != 0)
            return true;
    }
    return false;
}
