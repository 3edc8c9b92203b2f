/* SPDX-License-Identifier: MIT */
/*
 * handover: how long it takes to hand a block of memory to another process.
 *
 *     sender             xman, the manager            receiver
 *     mapping ---------- [ the block ] -------------> mapping   a descriptor
 *     mapping --------------------------------------> copy      every byte
 *
 *     ./bench/handover
 *
 * It starts a manager of its own, extra/xman or the program XMAN. All processes
 * use one core, because waking another can take longer than copying a page.
 * unix(7), cmsg(3), memfd_create(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change this line. */
enum { LEAST = 4 << 10, MOST = 256 << 20, STEP = 16 };
static long long size; /* of the block that is being measured, in bytes */
static int id;         /* the number that the manager gave it */

/* A request to the manager and its answer, as in extra/xman.c. */
struct message {
    enum { ALLOCATE, GET } operation;
    int id, error;
    long long size;
};
static pid_t manager;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_length;

static void start_manager(const char *program);
static char *ask(int operation);
static int start_sender(const char *block);
static void get(const char *table, long long first);
static void copy(const char *table, int sender);

int main(int argc, char *argv[])
{
    if (argc > 2) errx(2, "usage: handover [XMAN]");
    setvbuf(stdout, NULL, _IOLBF, 0);
    cpu_set_t core = {0};
    CPU_SET(sched_getcpu(), &core);
    if (sched_setaffinity(0, sizeof core, &core) == -1)
        err(1, "sched_setaffinity");
    start_manager(argc > 1 ? argv[1] : "extra/xman");

    for (size = LEAST; size <= MOST; size *= STEP) {
        char *block = ask(ALLOCATE);
        memset(block, 'x', size);
        block[size - 1] = '!';
        const int sender = start_sender(block);
        for (int i = 0; i < 5; i++) get("get a block from xman", size - 1);
        get("get it, and read all of it", 0);
        copy("copy it through a socket", sender);
        close(sender);
    }
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

static void start_manager(const char *program)
{
    char name[20];
    snprintf(name, sizeof name, ".%d", getpid());
    if (setenv("XMAN", name, 1) == -1) err(1, "setenv");
    address_length = offsetof(struct sockaddr_un, sun_path) + 1 +
                     sprintf(address.sun_path + 1, "xman-%u%s", getuid(), name);

    const pid_t parent = getpid();
    manager = fork();
    if (manager == -1) err(1, "fork");
    if (manager > 0) return;
    /* The manager does not outlive this process, whatever ends it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
    if (getppid() != parent) exit(1);
    execl(program, "xman", "manager", NULL);
    err(1, "%s", program);
}

/* Returns a mapping of the block whose descriptor is in the answer. */
static char *ask(int operation)
{
    const int peer = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (peer == -1) err(1, "socket");
    while (connect(peer, (void *)&address, address_length) == -1) {
        /* The manager is not ready yet, or it has printed why it ended. */
        if (waitpid(manager, NULL, WNOHANG) != 0) exit(1);
        usleep(1000);
    }

    struct message message = {operation, id, 0, size};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {&message, sizeof message};
    struct msghdr answer = {.msg_iov = &data,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof control};
    send(peer, &message, sizeof message, MSG_NOSIGNAL);
    if (recvmsg(peer, &answer, MSG_CMSG_CLOEXEC) != sizeof message)
        errx(1, "the manager did not answer");
    if (message.error != 0)
        errx(1, "%lld bytes: %s", size, strerror(message.error));
    const int fd = *(int *)CMSG_DATA(&control.header);
    char *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (block == MAP_FAILED) err(1, "mmap of %lld bytes", size);
    close(fd);
    close(peer);
    id = message.id;
    return block;
}

/* Returns a socket. The sender answers each byte with the whole block, until
   the socket is closed. */
static int start_sender(const char *block)
{
    int ends[2];
    char request;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
        err(1, "socketpair");
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    close(ends[child > 0]);
    if (child > 0) return ends[0];
    while (recv(ends[1], &request, 1, 0) == 1)
        send(ends[1], block, size, MSG_NOSIGNAL);
    exit(0);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* The only '!' of a block is its last byte. memchr() is fast however this
   program is compiled. */
static void read_to_end(const char *bytes, long long count)
{
    if (memchr(bytes, '!', count) == NULL)
        errx(1, "the last byte did not arrive");
}

static void report(const char *table, double start)
{
    printf("%s\t%lld %s\t%.1f\tus\n", table,
           size < 1 << 20 ? size >> 10 : size >> 20,
           size < 1 << 20 ? "KiB" : "MiB", (now() - start) * 1e6);
}

/* Maps the block, and reads it from byte `first` to its end. */
static void get(const char *table, long long first)
{
    const double start = now();
    char *block = ask(GET);
    read_to_end(block + first, size - first);
    report(table, start);
    if (munmap(block, size) == -1) err(1, "munmap");
}

/* Only the second copy is timed, because the first one causes page faults. */
static void copy(const char *table, int sender)
{
    static char place[MOST];
    double start = 0;
    for (int i = 0; i < 2; i++) {
        place[size - 1] = '?';
        start = now();
        send(sender, "", 1, MSG_NOSIGNAL);
        recv(sender, place, size, MSG_WAITALL);
    }
    report(table, start);
    read_to_end(place, size);
}
