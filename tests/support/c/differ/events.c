/* events.c - operations that register for events, and look at them
 *
 *   add EPOLL SLOT EVENTS     mod EPOLL SLOT EVENTS     del EPOLL SLOT     EVENTS: letters of "ioprhet1"
 *   look EPOLL                epoll_wait(), in the order of the slots
 *   nest                      the second epoll instance into the first
 *   poll SLOT                 all events      select SLOT
 *
 * An epoll instance is made when it is first named. An event is "gone" when it is about a file that its
 * slot no longer holds; the kernel reports such a one as long as anybody holds the file. */
#include "differ.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>

#define EVENTS_MAX 32
#define SLOT_BITS 8
#define SLOT_MASK 0xffull
#define NESTED 100 /* in place of a slot: the nested instance */

struct event_name {
    uint32_t bit;
    char letter;
    const char *name;
};

static const struct event_name names[] = {
    {EPOLLIN, 'i', "in"},       {EPOLLOUT, 'o', "out"},   {EPOLLPRI, 'p', "pri"},
    {EPOLLRDHUP, 'r', "rdhup"}, {EPOLLHUP, 'h', "hup"},   {EPOLLERR, 'e', "err"},
    {EPOLLET, 't', "et"},       {EPOLLONESHOT, '1', "1"}, {EPOLLRDNORM, 'n', "rdnorm"},
};

static uint32_t events_of(const char *letters)
{
    uint32_t events = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strchr(letters, names[i].letter) != NULL)
            events |= names[i].bit;
    return events;
}

static void tell_events(uint32_t events)
{
    bool first = true;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (events & names[i].bit) {
            tell("%s%s", first ? "" : "+", names[i].name);
            first = false;
        }
    if (first)
        tell("nothing");
}

static int epoll_index(const char *word)
{
    return atoi(word) % N_EPOLLS;
}

static int epoll_of(const char *word)
{
    int *epoll = &epolls[epoll_index(word)];

    if (*epoll < 0)
        *epoll = must("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
    return *epoll;
}

/* An event's data is the slot, and above it the cookie of the file that was registered. */
static uint64_t data_of(const char *slot)
{
    return (cookie_of(slot_fd(slot)) << SLOT_BITS) | (uint64_t)slot_index(slot);
}

static void do_control(char **words, int n_words)
{
    struct epoll_event event = {.data.u64 = data_of(words[2])};
    int how = words[0][0] == 'a'   ? EPOLL_CTL_ADD
              : words[0][0] == 'm' ? EPOLL_CTL_MOD
                                   : EPOLL_CTL_DEL;

    if (n_words > 3)
        event.events = events_of(words[3]);
    tell_result(epoll_ctl(epoll_of(words[1]), how, slot_fd(words[2]), &event));
}

static void do_nest(char **words, int n_words)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = NESTED};

    (void)words;
    (void)n_words;
    tell_result(epoll_ctl(epoll_of("0"), EPOLL_CTL_ADD, epoll_of("1"), &event));
}

static int by_slot(const void *left, const void *right)
{
    const struct epoll_event *one = left;
    const struct epoll_event *other = right;
    uint64_t slot = one->data.u64 & SLOT_MASK;
    uint64_t other_slot = other->data.u64 & SLOT_MASK;

    if (slot != other_slot)
        return slot < other_slot ? -1 : 1;
    return one->events < other->events ? -1 : one->events > other->events;
}

static bool is_gone(int slot, uint64_t data)
{
    uint64_t cookie = slots[slot] < 0 ? 0 : cookie_of(slots[slot]);

    return (cookie << SLOT_BITS) != (data & ~SLOT_MASK);
}

static void do_look(char **words, int n_words)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(epoll_of(words[1]), events, EVENTS_MAX, 0);

    (void)n_words;
    tell_result(n);
    if (n > 0)
        qsort(events, (size_t)n, sizeof(events[0]), by_slot);
    for (int i = 0; i < n; i++) {
        int slot = (int)(events[i].data.u64 & SLOT_MASK);

        tell(" %d:", slot);
        tell_events(events[i].events);
        if (slot != NESTED && is_gone(slot, events[i].data.u64))
            tell(" gone");
    }
}

/* say_events - what poll(2) says of it */
void say_events(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};

    poll(&polled, 1, 0);
    tell(" ");
    if (polled.revents & POLLNVAL)
        tell("nval");
    else
        tell_events((uint32_t)polled.revents);
}

static void do_poll(char **words, int n_words)
{
    (void)n_words;
    say_events(slot_fd(words[1]));
}

static void do_select(char **words, int n_words)
{
    struct timeval at_once = {0};
    int fd = slot_fd(words[1]);
    fd_set sets[3];

    (void)n_words;
    for (int i = 0; i < 3; i++) {
        FD_ZERO(&sets[i]);
        FD_SET(fd, &sets[i]);
    }
    tell_result(select(fd + 1, &sets[0], &sets[1], &sets[2], &at_once));
    tell(" read %d write %d except %d", FD_ISSET(fd, &sets[0]) != 0, FD_ISSET(fd, &sets[1]) != 0,
         FD_ISSET(fd, &sets[2]) != 0);
}

const struct operation event_operations[] = {
    {"add", do_control}, {"mod", do_control}, {"del", do_control},   {"look", do_look},
    {"nest", do_nest},   {"poll", do_poll},   {"select", do_select}, {NULL, NULL},
};
