/* SPDX-License-Identifier: MIT */
/*
 * xman: a memory manager, a process that hands out memory to other processes.
 *
 *      client A               manager                client B
 *    +---------+  allocate  +---------+    get 1   +---------+
 *    |         | ---------> | 1 memfd | <--------- |         |
 *    | mapping | <--------- | 2 memfd | ---------> | mapping |
 *    +----|----+    ID 1    +----|----+ descriptor +----|----+
 *         +--------------> the same pages <-------------+
 *     Descriptors go over the socket, bytes never: getting a gigabyte costs
 *     what a page costs. A memory stays until it is freed, its pages until
 *     nobody has them mapped.
 *
 *     ./extra/xman manager &
 *     ./extra/xman allocate 6; echo hello | ./extra/xman put 1
 *
 * memfd_create(2), unix(7), cmsg(3); fcntl(2) explains the seals.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE; /* for who writes; the others read */
static int flags = MAP_SHARED;
static int seals = F_SEAL_SHRINK | F_SEAL_GROW; /* of every memory */
static uintmax_t limit; /* of all memories together: half of the RAM */
static const uintmax_t per_request = (uintmax_t)8 << 30;
static const uintmax_t per_process = 64;
static const struct timeval patience = {.tv_sec = 10}; /* with the manager */

/* What goes over the socket. The word of a request is an operation; that of a
   reply is an errno, or 0: then the descriptor of the memory comes with it. */
enum { ALLOCATE = 1, GET, FREE, NEXT };
struct message {
    uintmax_t word, id, size;
};
_Static_assert(sizeof(struct message) == 24, "on all machines");

/* A message, and what the kernel knows of it. */
struct letter {
    struct message message;
    struct ucred sender;
    struct sockaddr_un from; /* where a reply goes to */
    socklen_t from_length;
    int fds[2]; /* or -1; there is room for two, to see who sends two */
};
enum outcome { RECEIVED, NOTHING_CAME, NOT_A_MESSAGE, ANOTHER_USERS };

/* What the manager knows of a memory, at place id % MEMORIES. It maps none. */
enum { MEMORIES = 512 };
static struct memory {
    uintmax_t id, size; /* 0: there is none */
    pid_t owner;
    int fd;
} memories[MEMORIES];
static uintmax_t last_id;

static char *path;                      /* the manager's socket */
static char *directory;                 /* where it is by default: ours alone */
static int have_directory, have_socket; /* of ours, to be removed */
static struct stat socket_made;         /* by this process */
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_length;

static uintmax_t operand; /* of the command: its SIZE or ID */

static uintmax_t xman_allocate(uintmax_t size);
static char *xman_get(uintmax_t id, int access, uintmax_t *size);
static void xman_free(uintmax_t id);
static void allocate(void);
static void put(void);
static void get(void);
static void seal(void);
static void release(void);
static void list(void);
static int has_seal(int fd, int wanted);
static void demo(void);
static void manage(void);
static void serve(int in);
static void answer(int out, struct letter *letter);
static int take_place(void);
static int ask(struct message *message);
static int open_socket(void);
static enum outcome receive(int socket, int descriptors, struct letter *letter);
static int reply(int socket, struct letter *letter, int fd);
static int is_another_users(const char *file);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void catch_signals(void (*handler)(int));
static void flush_stdout(void);

enum { NEEDS_NOTHING, NEEDS_ID, NEEDS_SIZE };
static const struct command {
    const char *name;
    void (*run)(void);
    int needs;
} commands[] = {
    {"manager", manage, NEEDS_NOTHING},
    {"allocate", allocate, NEEDS_SIZE},
    {"put", put, NEEDS_ID},
    {"get", get, NEEDS_ID},
    {"seal", seal, NEEDS_ID},
    {"free", release, NEEDS_ID},
    {"list", list, NEEDS_NOTHING},
    {NULL, NULL, NEEDS_NOTHING},
};
static void (*run)(void) = demo; /* what is to be done */

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    run();
    flush_stdout();
}

/* The API. A refusal ends the program; a real library would return it. The
   manager keeps a new memory, so that this descriptor of it can go. */
static uintmax_t xman_allocate(uintmax_t size)
{
    struct message message = {ALLOCATE, 0, size};
    const int fd = ask(&message);
    close(fd);
    return message.id;
}

static char *xman_get(uintmax_t id, int access, uintmax_t *size)
{
    struct message message = {GET, id, 0};
    const int fd = ask(&message);

    /* A size is only believed when the file has it, and cannot lose it: then
       no byte of the mapping is a SIGBUS. */
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "%ju: fstat", id);
    const int has_size = (uintmax_t)status.st_size == message.size;
    if (!has_size || !has_seal(fd, F_SEAL_SHRINK))
        errx(1, "%ju: not the memory that was promised", id);
    if (message.size > SIZE_MAX / 2) errx(1, "%ju: larger than a process", id);
    *size = message.size;

    /* A private mapping that is only read shows the pages of all. A shared one
       could be made writable later: as long as it lasts nobody could seal. */
    int sharing = MAP_PRIVATE;
    if (access & PROT_WRITE) sharing = flags;
    char *memory = mmap(NULL, *size, access, sharing, fd, 0);
    if (memory == MAP_FAILED) err(1, "%ju: mmap", id);
    close(fd);
    return memory;
}

static void xman_free(uintmax_t id)
{
    struct message message = {FREE, id, 0};
    const int fd = ask(&message);
    close(fd);
}

/* A memory whose ID cannot be printed is freed: nobody could ask for it. */
static void allocate(void)
{
    signal(SIGPIPE, SIG_IGN);
    const uintmax_t id = xman_allocate(operand);
    printf("%ju\n", id);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        const char *reason = strerror(errno);
        xman_free(id);
        errx(1, "stdout: %s", reason);
    }
}

/* All of stdin is read before the first byte is written. */
static void put(void)
{
    uintmax_t size;
    char *memory = xman_get(operand, prot, &size);
    char *input = malloc(size + 1);
    if (input == NULL) err(1, "%ju bytes", size);
    const size_t length = fread(input, 1, size + 1, stdin);
    if (ferror(stdin)) err(1, "stdin");
    if (length > size) errx(1, "stdin: longer than %ju bytes", size);
    memcpy(memory, input, length);
    free(input);
}

static void get(void)
{
    uintmax_t size;
    const char *memory = xman_get(operand, PROT_READ, &size);
    fwrite(memory, 1, size, stdout);
}

/* From now on no mapping may write: it is the kernel that refuses. */
static void seal(void)
{
    struct message message = {GET, operand, 0};
    const int fd = ask(&message);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == -1)
        err(1, "%ju: seal", operand);
    close(fd);
}

static void release(void) /* free() is the C library's */
{
    xman_free(operand);
}

static void list(void)
{
    struct message message = {NEXT, 1, 0};
    int fd = ask(&message);
    while (fd != -1) {
        const char *mark = has_seal(fd, F_SEAL_WRITE) ? " sealed" : "";
        printf("%ju %ju%s\n", message.id, message.size, mark);
        close(fd);
        message = (struct message){NEXT, message.id + 1, 0};
        fd = ask(&message);
    }
}

static int has_seal(int fd, int wanted)
{
    const int found = fcntl(fd, F_GET_SEALS);
    return found != -1 && (found & wanted) != 0;
}

/* The demonstration. Its socket has no name in the file system, and its
   children end with it: nothing can be left behind. */
static int demo_socket;

static void be_manager(void)
{
    serve(demo_socket);
}

static void be_client_a(void)
{
    uintmax_t size;
    const uintmax_t id = xman_allocate(4096);
    char *memory = xman_get(id, prot, &size);
    printf("[client A %d] gets memory %ju at %p: '%s', stores 'hello, B'\n",
           getpid(), id, (void *)memory, memory);
    strcpy(memory, "hello, B");
}

/* B frees what A has left, and keeps its mapping. */
static void be_client_b(void)
{
    uintmax_t size;
    char *memory = xman_get(1, prot, &size);
    printf("[client B %d] gets memory 1 at %p: '%s', ", getpid(),
           (void *)memory, memory);
    xman_free(1);
    printf("frees it, has '%s'\n", memory);
}

/* A child that ends when its parent ends, however that does. */
static pid_t start_child(void (*role)(void))
{
    const pid_t parent = getpid(), child = fork();
    if (child == -1) err(1, "fork");
    if (child > 0) return child;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
    if (getppid() != parent) exit(1);
    role();
    flush_stdout();
    exit(0);
}

/* A child that fails has said why; one that is killed cannot. Without the
   manager nobody would answer the client. */
static void wait_for(const char *name, pid_t client, pid_t manager)
{
    pid_t ended = 0;
    int status;
    while (ended != client && ended != manager) {
        ended = waitpid(-1, &status, 0);
        if (ended == -1) err(1, "waitpid");
    }
    if (ended == manager) {
        kill(client, SIGKILL);
        name = "manager";
    }
    if (WIFSIGNALED(status))
        errx(1, "%s: killed by signal %d", name, WTERMSIG(status));
    if (ended == manager || status != 0) exit(1);
}

static void demo(void)
{
    signal(SIGCHLD, SIG_DFL); /* ignored, waitpid() would learn nothing */
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stderr, NULL, _IOLBF, 0); /* or two that fail mix their words */
    puts("A manager and two clients, three processes:");
    flush_stdout();

    /* Bound to nothing but its family, a socket gets a name by the kernel. */
    demo_socket = open_socket();
    struct sockaddr *name = (void *)&address;
    if (bind(demo_socket, name, sizeof address.sun_family) == -1)
        err(1, "bind");
    address_length = sizeof address;
    if (getsockname(demo_socket, name, &address_length) == -1)
        err(1, "getsockname");

    const pid_t manager = start_child(be_manager);
    const pid_t client_a = start_child(be_client_a);
    wait_for("client A", client_a, manager);
    const pid_t client_b = start_child(be_client_b);
    wait_for("client B", client_b, manager);
    if (kill(manager, SIGKILL) == -1) err(1, "kill");
    if (waitpid(manager, NULL, 0) == -1) err(1, "waitpid");
}

/* The manager. Its socket may have been removed, and that of another manager
   be there now. */
static int socket_is_replaced(void)
{
    struct stat now;
    if (socket_made.st_ino == 0) return 0;
    if (lstat(path, &now) == -1) return 0;
    return now.st_ino != socket_made.st_ino;
}

static void remove_place(void)
{
    if (have_socket && !socket_is_replaced()) unlink(path);
    if (have_directory) rmdir(directory);
}

static void end_by_signal(int signum)
{
    remove_place();
    raise(signum); /* after this handler, and by default it ends us */
}

static void manage(void)
{
    catch_signals(end_by_signal);
    atexit(remove_place);
    signal(SIGXFSZ, SIG_IGN); /* a limit is an error */
    serve(take_place());
}

static uintmax_t half_of_the_ram(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    if (pages < 2) errx(1, "RAM: its size is not known");
    return (uintmax_t)pages / 2 * sysconf(_SC_PAGESIZE);
}

/* Never waits for a client. Replies that nobody reads would fill the buffer of
   one socket: each has its own, opened before a memory takes the last
   descriptor. */
static void serve(int in)
{
    if (limit == 0) limit = half_of_the_ram();
    puts("ready");
    flush_stdout();
    for (;;) {
        struct letter letter;
        const int own = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        const int out = own != -1 ? own : in;
        switch (receive(in, 0, &letter)) {
        case RECEIVED: answer(out, &letter); break;
        case ANOTHER_USERS:
            letter.message = (struct message){EACCES, 0, 0};
            reply(out, &letter, -1);
            break;
        default: break; /* whoever it was, it is not our protocol */
        }
        if (own != -1) close(own);
    }
}

/* A new memory, or an errno. ftruncate() makes a hole: time and RAM are spent
   by who writes to it. No ID is given twice, but its place is: of the next IDs,
   one for each place, this takes the smallest whose place is free. */
static int new_memory(uintmax_t size, pid_t owner, struct memory **memory)
{
    uintmax_t total = 0, owned = 0, id = 0;
    for (uintmax_t i = last_id + MEMORIES; i > last_id; i--) {
        const struct memory *other = &memories[i % MEMORIES];
        total += other->size;
        if (other->size != 0 && other->owner == owner) owned++;
        if (other->size == 0) id = i;
    }
    if (size == 0 || size > per_request) return EFBIG;
    if (owned >= per_process) return EDQUOT;
    if (id == 0 || size > limit - total) return ENOMEM;

    const int fd = memfd_create("xman", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd == -1) return errno;
    int failed = ftruncate(fd, size);
    if (!failed) failed = fcntl(fd, F_ADD_SEALS, seals);
    if (failed) {
        const int error = errno;
        close(fd);
        return error;
    }
    *memory = &memories[id % MEMORIES];
    **memory = (struct memory){id, size, owner, fd};
    last_id = id;
    return 0;
}

static int find_memory(uintmax_t id, struct memory **memory)
{
    *memory = &memories[id % MEMORIES];
    if ((*memory)->size != 0 && (*memory)->id == id) return 0;
    return id <= last_id ? EIDRM : EINVAL; /* it was, or never was */
}

static int find_next(uintmax_t id, struct memory **memory)
{
    *memory = NULL;
    for (int i = 0; i < MEMORIES; i++) {
        struct memory *other = &memories[i];
        if (other->size == 0 || other->id < id) continue;
        if (*memory == NULL || other->id < (*memory)->id) *memory = other;
    }
    return *memory == NULL ? ENOENT : 0;
}

/* Every success carries the descriptor, that of FREE, too: so who frees a
   gigabyte closes it last, and the kernel's work is that client's. */
static void answer(int out, struct letter *letter)
{
    const struct message request = letter->message;
    struct memory *memory = NULL;
    int error;
    switch (request.word) {
    case ALLOCATE:
        error = new_memory(request.size, letter->sender.pid, &memory);
        break;
    case GET:
    case FREE: error = find_memory(request.id, &memory); break;
    case NEXT: error = find_next(request.id, &memory); break;
    default: return;
    }
    if (error) {
        letter->message = (struct message){error, 0, 0};
        reply(out, letter, -1);
        return;
    }
    letter->message = (struct message){0, memory->id, memory->size};
    const int sent = reply(out, letter, memory->fd);
    const int freed = request.word == FREE && sent;
    const int undeliverable = request.word == ALLOCATE && !sent;
    if (freed || undeliverable) {
        close(memory->fd);
        *memory = (struct memory){0};
    }
}

/* No signal comes between making a thing and knowing that it is ours. */
static void hold_signals(int how)
{
    static sigset_t before;
    sigset_t all;
    sigfillset(&all);
    if (how == SIG_BLOCK) sigprocmask(SIG_BLOCK, &all, &before);
    if (how == SIG_UNBLOCK) sigprocmask(SIG_SETMASK, &before, NULL);
}

static void make_directory(void)
{
    struct stat status;
    hold_signals(SIG_BLOCK);
    have_directory = mkdir(directory, 0700) == 0;
    if (!have_directory && errno != EEXIST) err(1, "%s", directory);
    if (lstat(directory, &status) == -1) err(1, "%s", directory);
    const int is_ours = status.st_uid == geteuid();
    if (!S_ISDIR(status.st_mode) || !is_ours || status.st_mode & 077)
        errx(1, "%s: not a directory of ours alone", directory);
    have_directory = 1; /* also one that a killed manager has left */
    hold_signals(SIG_UNBLOCK);
}

/* Of two that start at once, the lock makes one the second. */
static int lock_directory(void)
{
    char *copy = strdup(path);
    if (copy == NULL) err(1, "%s", path);
    const int place = open(dirname(copy), O_DIRECTORY | O_CLOEXEC);
    if (place == -1) err(1, "%s", path);
    if (flock(place, LOCK_EX) == -1) err(1, "%s: flock", path);
    free(copy);
    return place;
}

/* At a dead manager's socket nobody listens. */
static void remove_dead_socket(void)
{
    struct stat status;
    const int probe = open_socket();
    if (connect(probe, (void *)&address, address_length) == 0)
        errx(1, "%s: there is a manager already", path);
    const int nobody_listens = errno == ECONNREFUSED;
    close(probe);
    if (!nobody_listens) return;
    if (lstat(path, &status) == -1) return;
    if (!S_ISSOCK(status.st_mode) || status.st_uid != geteuid()) return;
    if (unlink(path) == -1) err(1, "%s", path);
}

static void place_is_taken(void)
{
    if (is_another_users(path)) errx(1, "%s: belongs to another user", path);
    errx(1, "%s: is taken, and not by a manager", path);
}

static int take_place(void)
{
    const int in = open_socket();
    umask(077);
    for (;;) {
        if (directory) make_directory();
        const int lock = lock_directory();
        remove_dead_socket();
        hold_signals(SIG_BLOCK);
        const int failed = bind(in, (void *)&address, address_length);
        /* Another manager has ended, and taken the directory along. */
        const int again = failed && directory && errno == ENOENT;
        if (failed && errno == EADDRINUSE) place_is_taken();
        if (failed && !again) err(1, "%s", path);
        have_socket = !failed;
        if (have_socket && lstat(path, &socket_made) == -1) err(1, "%s", path);
        hold_signals(SIG_UNBLOCK);
        close(lock);
        if (!again) return in;
    }
}

/* The messages. Datagrams: there is no connection that a client could hold.
   SO_PASSCRED: the kernel names each one's sender, and gives a client an
   address for the reply. */
static int open_socket(void)
{
    const int one = 1;
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1) err(1, "socket");
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == -1)
        err(1, "SO_PASSCRED");
    return fd;
}

/* `descriptors`: whether to accept any. The manager does not: the kernel then
   closes them. */
static enum outcome receive(int socket, int descriptors, struct letter *letter)
{
    *letter = (struct letter){.fds = {-1, -1}, .sender = {.uid = -1}};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof letter->sender) +
                                          CMSG_SPACE(sizeof letter->fds)];
    struct iovec data = {&letter->message, sizeof letter->message};
    struct msghdr envelope = {.msg_name = &letter->from,
                              .msg_namelen = sizeof letter->from,
                              .msg_iov = &data,
                              .msg_iovlen = 1,
                              .msg_control = control,
                              .msg_controllen = sizeof control};
    if (!descriptors)
        envelope.msg_controllen = CMSG_SPACE(sizeof letter->sender);

    ssize_t got = recvmsg(socket, &envelope, MSG_CMSG_CLOEXEC);
    while (got == -1 && errno == EINTR) /* by Ctrl-Z and fg, too */
        got = recvmsg(socket, &envelope, MSG_CMSG_CLOEXEC);
    if (got == -1) return NOTHING_CAME;
    letter->from_length = envelope.msg_namelen;

    struct cmsghdr *header = CMSG_FIRSTHDR(&envelope);
    for (; header != NULL; header = CMSG_NXTHDR(&envelope, header)) {
        const size_t length = header->cmsg_len - CMSG_LEN(0);
        if (header->cmsg_level != SOL_SOCKET) continue;
        if (header->cmsg_type == SCM_CREDENTIALS)
            memcpy(&letter->sender, CMSG_DATA(header), length);
        if (header->cmsg_type == SCM_RIGHTS)
            memcpy(letter->fds, CMSG_DATA(header), length);
    }
    const int cut = envelope.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    if (got != sizeof letter->message || cut) return NOT_A_MESSAGE;
    if (letter->sender.uid != getuid()) return ANOTHER_USERS;
    return RECEIVED;
}

/* True if it is sent, with the descriptor, or without one if that is -1. */
static int reply(int socket, struct letter *letter, int fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {&letter->message, sizeof letter->message};
    struct msghdr envelope = {.msg_name = &letter->from,
                              .msg_namelen = letter->from_length,
                              .msg_iov = &data,
                              .msg_iovlen = 1};
    if (fd != -1) {
        struct cmsghdr *header = (void *)control;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        envelope.msg_control = control;
        envelope.msg_controllen = sizeof control;
    }
    const int how = MSG_DONTWAIT | MSG_NOSIGNAL;
    if (sendmsg(socket, &envelope, how) != -1) return 1;

    /* Too many descriptors are on their way to those who do not read. */
    if (fd == -1 || errno != ETOOMANYREFS) return 0;
    letter->message = (struct message){ETOOMANYREFS, 0, 0};
    reply(socket, letter, -1);
    return 0;
}

/* A file in a directory that is closed to us cannot be looked at: then the
   owner of the directory tells. */
static int is_another_users(const char *file)
{
    struct stat status;
    if (lstat(file, &status) == 0) return status.st_uid != getuid();
    char *copy = strdup(file);
    if (copy == NULL) err(1, "%s", file);
    const int found = stat(dirname(copy), &status) == 0;
    free(copy);
    return found && status.st_uid != getuid();
}

static void send_request(int socket, const struct message *message)
{
    const struct sockaddr *to = (void *)&address;
    const int how = MSG_NOSIGNAL;
    const socklen_t size = address_length;
    ssize_t sent = sendto(socket, message, sizeof *message, how, to, size);
    while (sent == -1 && errno == EINTR)
        sent = sendto(socket, message, sizeof *message, how, to, size);
    if (sent != -1) return;
    switch (errno) {
    case ENOENT:
    case ECONNREFUSED:
        err(1, "%s: no manager, start one with `xman manager'", path);
    case EAGAIN: errx(1, "%s: the manager does not answer", path);
    case EACCES:
        if (is_another_users(path))
            errx(1, "%s: belongs to another user", path);
        errx(1, "%s: %s", path, strerror(EACCES));
    default: err(1, "%s", path);
    }
}

/* Sends a request and puts the reply in its place. Returns the descriptor that
   came with it, or -1 if there is no NEXT. A refusal ends the program. */
static int ask(struct message *message)
{
    const struct message request = *message;
    const int socket = open_socket();
    const socklen_t size = sizeof patience;
    if (setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, size) == -1)
        err(1, "SO_SNDTIMEO");
    if (setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, size) == -1)
        err(1, "SO_RCVTIMEO");
    send_request(socket, message);

    struct letter letter;
    switch (receive(socket, 1, &letter)) {
    case RECEIVED: break;
    case NOTHING_CAME:
        if (errno == EAGAIN) errx(1, "%s: the manager does not answer", path);
        err(1, "%s", path);
    case NOT_A_MESSAGE: errx(1, "%s: not a manager's answer", path);
    case ANOTHER_USERS: errx(1, "%s: belongs to another user", path);
    }
    close(socket);

    *message = letter.message;
    const int wanted = message->word == 0; /* so many descriptors */
    const int came = (letter.fds[0] != -1) + (letter.fds[1] != -1);
    if (came != wanted) errx(1, "%s: not a manager's answer", path);
    if (request.word == NEXT && message->word == ENOENT) return -1;
    if (message->word != 0) {
        const uintmax_t object = request.id ? request.id : request.size;
        const char *reason = strerror(message->word);
        if (message->word == ETOOMANYREFS) /* musl has no words for it */
            reason = "too many descriptors are on their way to others";
        errx(1, "%ju: %s", object, reason);
    }
    return letter.fds[0];
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: xman [--socket=PATH] COMMAND\n"
         "Hand out memory to other processes; without COMMAND, show how.\n"
         "  manager [--limit=BYTES]  serve until INT or TERM; all together\n"
         "                           BYTES at most, or half of the RAM\n"
         "  allocate SIZE            print the ID of a new memory\n"
         "  put ID                   fill it from stdin\n"
         "  get ID                   print it\n"
         "  seal ID                  nobody may change it from now on\n"
         "  free ID                  free it\n"
         "  list                     print ID, size, and what is sealed\n"
         "example: xman manager & xman allocate 6; echo hi | xman put 1");
    flush_stdout();
    exit(0);
}

static long long parse_number(const char *text, long long least, long long most)
{
    const long long number = strtoll(text, NULL, 10);
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        errx(2, "%s: not a number", text);
    if (number < least || number > most)
        errx(2, "%s: not from %lld to %lld", text, least, most);
    return number;
}

/* The default place is ours alone; its directory comes and goes with it. */
static void set_path(const char *given)
{
    const char *place = getenv("XDG_RUNTIME_DIR");
    if (place == NULL || *place == '\0') place = "/tmp";
    int failed = 0;
    if (given) {
        path = strdup(given);
    } else {
        failed = asprintf(&directory, "%s/xman-%d", place, getuid()) == -1;
        if (!failed) failed = asprintf(&path, "%s/socket", directory) == -1;
    }
    if (failed || path == NULL) err(1, "%s", place);

    if (*path == '\0' || strlen(path) >= sizeof address.sun_path)
        errx(2, "%s: a socket's path has 1 to 107 bytes", path);
    strcpy(address.sun_path, path);
    address_length = sizeof address;
}

static void parse_command(int argc, char *argv[])
{
    const struct command *command = commands;
    while (command->name && strcmp(command->name, argv[0]) != 0) command++;
    if (command->name == NULL)
        errx(2, "%s: not a command; try --help", argv[0]);

    const char *const wants[] = {"no more", "one ID", "one SIZE"};
    if (argc != (command->needs == NEEDS_NOTHING ? 1 : 2))
        errx(2, "%s: wants %s; try --help", argv[0], wants[command->needs]);
    if (argc == 2) operand = parse_number(argv[1], 1, LLONG_MAX / 2);
    run = command->run;
}

static void parse_options(int argc, char *argv[])
{
    const long long most = LLONG_MAX / 2;
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"limit", 1, NULL, 'l'},
                                     {"socket", 1, NULL, 's'},
                                     {NULL, 0, NULL, 0}};
    const char *given = NULL;
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case 'l': limit = parse_number(optarg, 1, most); break;
        case 's': given = optarg; break;
        case '?': exit(2);
        }
    argc -= optind;
    argv += optind;
    if (argc == 0 && given) errx(2, "--socket: wants a command; try --help");
    if (argc > 0) parse_command(argc, argv);
    if (limit != 0 && run != manage)
        errx(2, "--limit: is for the manager; try --help");
    if (run != demo) set_path(given);
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

/* The end by a signal is cleaned up after. What was ignored at the start, as
   SIGHUP is by nohup(1), stays ignored. */
static void catch_signals(void (*handler)(int))
{
    const int signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = handler,
                                     .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        sigaction(signals[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
