/* address.c - words to socket addresses and back
 *
 * A target word is PLACE, or one of these:
 *   mapped:PLACE    the same, v4-mapped in an AF_INET6 address
 *   any4:PLACE      0.0.0.0 with its port;  any6:PLACE  [::] with it
 *   port0:PLACE     its host with port 0
 *   own:SLOT        where the socket in that slot is bound
 *   broadcast       255.255.255.255, which TCP cannot connect to
 *   unix            the listening unix socket;  nounix  a name that nobody has */
#include "differ.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define ANY_PORT 80
#define PLACE_FD_MIN 400

struct place places[N_PLACES];
int n_places;
bool told_back;
int places_socket = -1;

/* With places_socket, somebody hands over the fds there, one a message, in the order of the places. */
static int received_fd(void)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    char byte;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    int fd = -1;

    must("recvmsg", (int)recvmsg(places_socket, &message, 0));
    must("SCM_RIGHTS", CMSG_FIRSTHDR(&message) == NULL ? -1 : 0);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

/* place_add - NAME=HOST,PORT,REAL_HOST,FD; the fd is moved out of the way of the sequence's own */
void place_add(const char *text)
{
    struct place *place = &places[n_places++];

    if (n_places > N_PLACES ||
        sscanf(text, "%31[^=]=%63[^,],%d,%63[^,],%d", place->name, place->host, &place->port,
               place->real_host, &place->fd) != 5) {
        fprintf(stderr, "not a place: %s\n", text);
        exit(99);
    }
    if (place->fd >= 0) {
        int low = places_socket < 0 ? place->fd : received_fd();

        place->fd = must("F_DUPFD", fcntl(low, F_DUPFD_CLOEXEC, PLACE_FD_MIN));
        close(low);
    }
    place->type = strncmp(place->name, "udp-", 4) == 0 ? SOCK_DGRAM : SOCK_STREAM;
}

/* socket_type - SOCK_*; -1: no socket */
int socket_type(int fd)
{
    int type;
    socklen_t size = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ? -1 : type;
}

static const struct place *place_named(const char *name)
{
    for (int i = 0; i < n_places; i++)
        if (strcmp(places[i].name, name) == 0)
            return &places[i];
    return NULL;
}

static void write_ip4(const char *host, int port, struct target *ret)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&ret->storage;

    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    inet_pton(AF_INET, host, &in->sin_addr);
    ret->length = sizeof(*in);
}

static void write_ip6(const char *host, int port, struct target *ret)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->storage;

    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    inet_pton(AF_INET6, host, &in6->sin6_addr);
    ret->length = sizeof(*in6);
}

static void write_ip(const char *host, int port, struct target *ret)
{
    if (strchr(host, ':') != NULL)
        write_ip6(host, port, ret);
    else
        write_ip4(host, port, ret);
}

static bool write_unix(const char *name, struct target *ret)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&ret->storage;

    un->sun_family = AF_UNIX; /* an abstract name: path[0] stays 0 */
    strncpy(un->sun_path + 1, name, sizeof(un->sun_path) - 2);
    ret->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    return true;
}

/* Where the socket is bound; a wildcard stands for this host's own address. */
static bool write_own(const char *word, struct target *ret)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&ret->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->storage;

    ret->length = sizeof(ret->storage);
    if (getsockname(slot_fd(word), (struct sockaddr *)&ret->storage, &ret->length) < 0)
        return false;
    if (in->sin_family == AF_INET && in->sin_addr.s_addr == 0)
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (in6->sin6_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr))
        in6->sin6_addr = in6addr_loopback;
    return (in->sin_family == AF_INET || in->sin_family == AF_INET6) && in->sin_port != 0;
}

static bool write_place(const char *kind, size_t n, const struct place *place, const char *host,
                        struct target *ret)
{
    char mapped[80];

    if (n == 0 || strncmp(kind, "taken", n) == 0) {
        write_ip(host, place->port, ret);
        ret->hole = strncmp(place->name, "hole", 4) == 0;
    } else if (strncmp(kind, "mapped", n) == 0) {
        snprintf(mapped, sizeof(mapped), "::ffff:%s", host);
        write_ip6(mapped, place->port, ret);
        ret->hole = strncmp(place->name, "hole", 4) == 0;
    } else if (strncmp(kind, "any4", n) == 0) {
        write_ip4("0.0.0.0", place->port, ret);
    } else if (strncmp(kind, "any6", n) == 0) {
        write_ip6("::", place->port, ret);
    } else if (strncmp(kind, "port0", n) == 0) {
        write_ip(place->real_host, 0, ret); /* no route has port 0 */
    } else {
        return false;
    }
    return true;
}

/* target_parse - where a connect() or a datagram goes
 * @fd: the socket; when the place is not of its type, no route leads there, and it is given the real address
 * Return: whether there is such a target. */
bool target_parse(const char *word, int fd, struct target *ret)
{
    const char *colon = strchr(word, ':');
    size_t n = colon == NULL ? 0 : (size_t)(colon - word);
    const struct place *place;

    memset(ret, 0, sizeof(*ret));
    place = place_named("unix");
    if (strcmp(word, "unix") == 0)
        return place != NULL && write_unix(place->host, ret);
    if (strcmp(word, "nounix") == 0)
        return write_unix("meshfd-differ-nobody", ret);
    if (strcmp(word, "broadcast") == 0) {
        write_ip4("255.255.255.255", ANY_PORT, ret);
        return true;
    }
    if (n > 0 && strncmp(word, "own", n) == 0)
        return write_own(colon + 1, ret);
    place = place_named(n == 0 ? word : colon + 1);
    if (place == NULL)
        return false;
    return write_place(word, n, place,
                       socket_type(fd) == place->type ? place->host : place->real_host, ret);
}

/* bind_address_parse - HOST, with a port that the kernel chooses, or taken:PLACE */
bool bind_address_parse(const char *word, struct target *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (strncmp(word, "taken:", 6) == 0)
        return target_parse(word, -1, ret);
    write_ip(word, 0, ret);
    return true;
}

/* --- back to words ---------------------------------------------------------------------------------------- */

static int port_of(const struct sockaddr_storage *storage)
{
    return ntohs(((const struct sockaddr_in *)storage)->sin_port);
}

static int port_at(int fd, bool peer)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof(name);
    int result = peer ? getpeername(fd, (struct sockaddr *)&name, &length)
                      : getsockname(fd, (struct sockaddr *)&name, &length);

    if (result < 0 || (name.ss_family != AF_INET && name.ss_family != AF_INET6))
        return -1;
    return port_of(&name);
}

/* The socket that has this port and is connected to the one of `fd`, or (connected false) to none; -1. */
static int slot_at(int port, int fd, bool connected)
{
    for (int i = 0; i < N_SLOTS; i++) {
        int peer;

        if (slots[i] < 0 || port_at(slots[i], false) != port ||
            socket_type(slots[i]) != socket_type(fd))
            continue;
        peer = port_at(slots[i], true);
        if (connected ? peer >= 0 && peer == port_at(fd, false) : peer < 0)
            return i;
    }
    return -1;
}

/* Whose port is it? One that the kernel chose has no name but its socket's. The kernel may give the same to
 * two sockets that are connected elsewhere, or of which one was refused, so only a peer of `fd` is named, and
 * who may be one only after who is; a socket's own (fd -1) is "*". */
static void tell_port(int port, int fd)
{
    int slot;

    if (port == 0) {
        tell("0");
        return;
    }
    for (int i = 0; i < n_places; i++)
        if (places[i].port == port) {
            tell("%s", places[i].name);
            return;
        }
    slot = fd < 0 ? -1 : slot_at(port, fd, true);
    if (fd >= 0 && slot < 0)
        slot = slot_at(port, fd, false);
    if (slot >= 0)
        tell("slot%d", slot);
    else
        tell("*");
}

/* Where a route leads from the place's address, the address of the peer is that of the endpoint, and of the
 * place where addresses are told as they were asked for. Both are written as the endpoint's. */
static void tell_host(const char *host, int port, int fd)
{
    static const char prefix[] = "::ffff:";
    bool is_mapped = strncmp(host, prefix, strlen(prefix)) == 0;
    const char *plain = is_mapped ? host + strlen(prefix) : host;

    for (int i = 0; i < n_places && fd >= 0 && told_back; i++) {
        const struct place *place = &places[i];

        if (place->port != port || place->type != socket_type(fd))
            continue;
        if (strcmp(plain, place->real_host) == 0 && strcmp(place->host, place->real_host) != 0)
            tell("endpoint's ");
        else if (strcmp(plain, place->host) == 0)
            plain = place->real_host;
        tell("%s%s", is_mapped ? prefix : "", plain);
        return;
    }
    tell("%s", host);
}

/* say_address - with its length, when it is not its family's
 * @fd: whose peer it is; -1: it is the socket's own */
void say_address(const struct sockaddr_storage *storage, socklen_t length, int fd)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)storage;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)storage;
    char host[INET6_ADDRSTRLEN];

    if (length >= sizeof(*in) && storage->ss_family == AF_INET) {
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        tell_host(host, port_of(storage), fd);
        tell(":");
        tell_port(port_of(storage), fd);
    } else if (length >= sizeof(*in6) && storage->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        tell("[");
        tell_host(host, port_of(storage), fd);
        tell("]:");
        tell_port(port_of(storage), fd);
        if (in6->sin6_scope_id != 0 || in6->sin6_flowinfo != 0)
            tell(" scope %u flow %u", in6->sin6_scope_id, ntohl(in6->sin6_flowinfo));
    } else {
        tell("family %d length %u", length >= 2 ? storage->ss_family : -1, length);
    }
}
