//! The images by themselves, as users of the official ones start them: settings, `_FILE` forms, scripts for the first boot.

use crate::harness::{Ran, eventually, run};
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

/// A client at an engine that has the images, and the containers that it made.
struct Client<'a> {
    host: &'a str,
    names: std::cell::RefCell<Vec<String>>,
}

impl<'a> Client<'a> {
    fn new(host: &'a str) -> Client<'a> {
        Client { host, names: Default::default() }
    }

    fn docker(&self, args: &[&str]) -> Ran {
        run(Command::new("docker").env("DOCKER_HOST", self.host).args(args))
    }

    /// `docker run` in the background; the container's name.
    fn start(&self, args: &[&str]) -> String {
        let name = format!("entrypoints-{}-{}", std::process::id(), self.names.borrow().len());
        self.names.borrow_mut().push(name.clone());
        self.docker(&[&["run", "-d", "--name", &name], args].concat()).ok();
        name
    }

    /// `docker run` to the end.
    fn once(&self, args: &[&str]) -> Ran {
        self.docker(&[&["run", "--rm"], args].concat())
    }

    fn healthy(&self, name: &str) {
        eventually(30, &format!("{name} is healthy"), || {
            let state = self.docker(&["inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", name]).ok();
            assert!(state.starts_with("running"), "{state}: {}", self.logs(name));
            state.ends_with(" healthy").then_some(())
        });
    }

    fn exit_code(&self, name: &str) -> String {
        self.docker(&["wait", name]).ok()
    }

    fn logs(&self, name: &str) -> String {
        let logs = self.docker(&["logs", name]);
        logs.stdout + &logs.stderr
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        for name in self.names.borrow().iter() {
            self.docker(&["rm", "-f", "-v", name]);
        }
    }
}

/// Every case, on an engine that has the images.
pub fn all(host: &str) {
    let client = Client::new(host);
    mariadb_refuses_bad_settings(&client);
    mariadb_quotes(&client);
    mariadb_takes_other_settings(&client);
    mariadb_runs_scripts(&client);
    mariadb_reads_an_init_file(&client);
    mariadb_tells_of_refused_accounts(&client);
    wordpress_refuses_bad_settings(&client);
    wordpress_without_installation(&client);
}

fn mariadb_refuses_bad_settings(client: &Client) {
    for (settings, message) in [
        (
            &["-e", "MARIADB_ROOT_PASSWORD=x", "-e", "MARIADB_ROOT_PASSWORD_FILE=/etc/hostname"][..],
            "both MARIADB_ROOT_PASSWORD and",
        ),
        (&[], "no root password is given"),
        (&["-e", "MARIADB_ROOT_PASSWORD_FILE=/nowhere"], "/nowhere can't be read"),
        (&["-e", "MARIADB_ROOT_PASSWORD_FILE=/dev/null"], "/dev/null is empty"),
        (&["-e", "MARIADB_ROOT_PASSWORD=x", "-e", "MARIADB_USER=u"], "without MARIADB_PASSWORD"),
        (&["-e", "MARIADB_ROOT_PASSWORD=x", "-e", "MARIADB_PASSWORD=u"], "without MARIADB_USER"),
        (
            &["-e", "MARIADB_ROOT_PASSWORD=x", "-e", "MARIADB_USER=root", "-e", "MARIADB_PASSWORD=u"],
            "choose another name",
        ),
    ] {
        client.once(&[settings, &["mariadb:0.1.0"]].concat()).fails(1, message);
    }
    assert_eq!(client.once(&["mariadb:0.1.0", "echo", "any command"]).ok(), "any command");
}

/// Names and passwords with every character that SQL or the shell takes for its own.
fn mariadb_quotes(client: &Client) {
    let (user, password, database) = ("o'neil", r#"p'a\s"s`w$ö%_"#, "my_d`b-é");
    let name = client.start(&[
        "-e",
        &format!("MARIADB_ROOT_PASSWORD={password}"),
        "-e",
        &format!("MARIADB_USER={user}"),
        "-e",
        &format!("MARIADB_PASSWORD={password}"),
        "-e",
        &format!("MARIADB_DATABASE={database}"),
        "mariadb:0.1.0",
    ]);
    client.healthy(&name);
    let connect = |user: &str, sql: &str| {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", client.host).args(["exec", "-e", &format!("MYSQL_PWD={password}"), &name]);
        run(command.args(["mariadb", "--protocol=tcp", "--host=127.0.0.1", "-N", "--user", user, "-e", sql]))
    };
    let table = format!("`{}`.t", database.replace('`', "``"));
    connect(user, &format!("CREATE TABLE {table} (x INT)")).ok();
    connect(user, "CREATE TABLE mysql.t (x INT)").fails(1, "denied");
    assert_eq!(connect("root", "SELECT CURRENT_USER()").ok(), "root@%");
    client
        .docker(&[
            "exec",
            "-e",
            "MYSQL_PWD=wrong",
            &name,
            "mariadb",
            "--protocol=tcp",
            "-h127.0.0.1",
            "-uroot",
            "-e",
            "SELECT 1",
        ])
        .fails(1, "Access denied");
}

/// The image's own system tables go with the settings that they were made with; others get theirs.
fn mariadb_takes_other_settings(client: &Client) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("60-own.cnf");
    fs::write(&file, "[mariadbd]\ninnodb_page_size = 8k\n").unwrap();
    let mount = format!("{}:/etc/mysql/mariadb.conf.d/60-own.cnf:ro", file.display());
    let name = client.start(&["-v", &mount, "-e", "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1", "mariadb:0.1.0"]);
    client.healthy(&name);
    let question = "SELECT @@innodb_page_size; CHECK TABLE mysql.innodb_table_stats";
    let found = client.docker(&["exec", &name, "mariadb", "-N", "-B", "-e", question]).ok();
    assert_eq!(found, "8192\nmysql.innodb_table_stats\tcheck\tstatus\tOK");
}

fn mariadb_runs_scripts(client: &Client) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("1.sql", "CREATE TABLE t (x INT PRIMARY KEY, y TEXT); INSERT INTO t VALUES (1, 'one; two');");
    write(
        "2.sql",
        "-- A comment; with a semicolon.\nDELIMITER //\nCREATE PROCEDURE p() BEGIN INSERT INTO t VALUES (2, 'é'); END //\n\
         DELIMITER ;\nCALL p();\n",
    );
    gzip(&folder.path().join("3.sql.gz"), "INSERT INTO t VALUES (3, 'packed');");
    write("4.sh", "#!/bin/sh\necho \"INSERT INTO t VALUES (4, '$MARIADB_DATABASE')\" | docker_process_sql\n");
    fs::set_permissions(folder.path().join("4.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    write(
        "5.sh",
        "mariadb -uroot -p\"$MARIADB_ROOT_PASSWORD\" \"$MARIADB_DATABASE\" -e \"INSERT INTO t VALUES (5, 'sourced')\"\n",
    );
    // As a dump has it: one statement of 300 kB.
    let rows: Vec<String> = (0..1500).map(|row| format!("({row},'{}')", "y".repeat(200))).collect();
    write("6.sql", &format!("CREATE TABLE big (x INT, y TEXT); INSERT INTO big VALUES {};", rows.join(",")));
    write("7.txt", "not for us");
    let mount = format!("{}:/docker-entrypoint-initdb.d:ro", folder.path().display());
    let start =
        || client.start(&["-v", &mount, "-e", "MARIADB_ROOT_PASSWORD=x", "-e", "MARIADB_DATABASE=d", "mariadb:0.1.0"]);
    let name = start();
    client.healthy(&name);
    let found = client
        .docker(&["exec", &name, "mariadb", "-N", "-B", "d", "-e", "SELECT * FROM t; SELECT COUNT(*) FROM big"])
        .ok();
    assert_eq!(found, "1\tone; two\n2\té\n3\tpacked\n4\td\n5\tsourced\n1500");

    // Each of these ends the first boot, and leaves nothing that would pass for a database.
    for (file, text) in [("8.sql", "SELECT * FROM nowhere;"), ("8.sh", "false\ntrue\n"), ("8.sql.gz", "not packed")] {
        write(file, text);
        let name = start();
        assert_eq!(client.exit_code(&name), "1", "{file}: {}", client.logs(&name));
        assert!(
            client.logs(&name).contains("a script in /docker-entrypoint-initdb.d failed"),
            "{}",
            client.logs(&name)
        );
        client.docker(&["start", &name]).ok();
        assert_eq!(client.exit_code(&name), "1", "the second start goes on with half a database");
        fs::remove_file(folder.path().join(file)).unwrap();
    }
}

/// The accounts come by an init file; the user's own one counts too, at the first start and at the next.
fn mariadb_reads_an_init_file(client: &Client) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.sql");
    fs::write(&file, "CREATE DATABASE IF NOT EXISTS theirs;\nSET GLOBAL max_connections = 77;\n").unwrap();
    let mount = format!("{}:/own.sql:ro", file.display());
    let settings = ["-v", &mount, "-e", "MARIADB_ROOT_PASSWORD=x", "-e", "MARIADB_DATABASE=d"];
    let name = client.start(&[&settings[..], &["mariadb:0.1.0", "--init-file=/own.sql"]].concat());
    for _ in 0..2 {
        client.healthy(&name);
        let found =
            client.docker(&["exec", &name, "mariadb", "-N", "-B", "-e", "SHOW DATABASES; SELECT @@max_connections"]);
        assert_eq!(found.ok(), "d\ninformation_schema\nmysql\nperformance_schema\nsys\ntheirs\n77");
        client.docker(&["restart", &name]).ok();
    }
}

/// What the server refuses of the settings is said by the health check; no account is made that nobody asked for.
fn mariadb_tells_of_refused_accounts(client: &Client) {
    let database = format!("MARIADB_DATABASE={}", "x".repeat(65));
    let name = client.start(&["-e", "MARIADB_ROOT_PASSWORD=x", "-e", &database, "mariadb:0.1.0"]);
    eventually(30, "the health check tells", || {
        let format = "{{range .State.Health.Log}}{{.Output}}{{end}}";
        let said = client.docker(&["inspect", "--format", format, &name]).ok();
        said.contains("the server refused the accounts").then_some(())
    });
    let accounts = "SELECT CONCAT(User, '@', Host) FROM mysql.global_priv ORDER BY 1";
    let found = client.docker(&["exec", &name, "mariadb", "-N", "-B", "-e", accounts]).ok();
    assert_eq!(found, "mariadb.sys@localhost\nroot@%\nroot@localhost");
}

fn wordpress_refuses_bad_settings(client: &Client) {
    for (settings, message) in [
        (
            &["-e", "WORDPRESS_DB_PASSWORD=x", "-e", "WORDPRESS_DB_PASSWORD_FILE=/etc/hostname"][..],
            "both WORDPRESS_DB_PASSWORD and",
        ),
        (&["-e", "WORDPRESS_DB_PASSWORD_FILE=/nowhere"], "/nowhere can't be read"),
        (&["-e", "WORDPRESS_TABLE_PREFIX=a-b"], "WORDPRESS_TABLE_PREFIX"),
        (&["-e", "WORDPRESS_ADMIN_USER=owner"], "without WORDPRESS_ADMIN_PASSWORD_FILE"),
        (&["-e", "WORDPRESS_DB_HOST=127.0.0.1", "-e", "WORDPRESS_DB_WAIT=1"], "no database at 127.0.0.1 after 1 s"),
    ] {
        client.once(&[settings, &["wordpress:0.1.0"]].concat()).fails(1, message);
    }
}

/// As the official image is started: without a site's users, with settings of the user's own.
fn wordpress_without_installation(client: &Client) {
    let network = format!("entrypoints-{}", std::process::id());
    client.docker(&["network", "create", &network]).ok();
    let database = client.start(&[
        "--network",
        &network,
        "--network-alias",
        "db",
        "-e",
        "MARIADB_ROOT_PASSWORD=x",
        "-e",
        "MARIADB_DATABASE=d",
        "-e",
        "MARIADB_USER=u",
        "-e",
        "MARIADB_PASSWORD=p",
        "mariadb:0.1.0",
    ]);
    let name = client.start(&[
        "--network",
        &network,
        "-e",
        "WORDPRESS_DB_HOST=db:3306",
        "-e",
        "WORDPRESS_DB_USER=u",
        "-e",
        "WORDPRESS_DB_PASSWORD=p",
        "-e",
        "WORDPRESS_DB_NAME=d",
        "-e",
        "WORDPRESS_TABLE_PREFIX=x_",
        "-e",
        "WORDPRESS_DEBUG=1",
        "-e",
        "WORDPRESS_CONFIG_EXTRA=define('EXTRA', 'seen');",
        "wordpress:0.1.0",
    ]);
    client.healthy(&name);
    let told = "require '/run/wordpress/settings.php'; echo EXTRA, DB_NAME, (int) WP_DEBUG, $table_prefix;";
    assert_eq!(client.docker(&["exec", &name, "php8.2", "-r", told]).ok(), "seend1x_");
    let tables = client.docker(&["exec", &database, "mariadb", "-N", "d", "-e", "SHOW TABLES"]).ok();
    assert_eq!(tables, "", "nothing is installed unasked");
    // A wrong password is said at once, not waited for.
    client
        .docker(&[
            "run",
            "--rm",
            "--network",
            &network,
            "-e",
            "WORDPRESS_DB_HOST=db",
            "-e",
            "WORDPRESS_DB_USER=u",
            "-e",
            "WORDPRESS_DB_PASSWORD=wrong",
            "-e",
            "WORDPRESS_DB_NAME=d",
            "wordpress:0.1.0",
        ])
        .fails(1, "refuses user u");
    for name in [name, database] {
        client.docker(&["rm", "-f", "-v", &name]).ok();
    }
    client.docker(&["network", "rm", &network]).ok();
}

fn gzip(path: &Path, text: &str) {
    let mut gzip = Command::new("gzip").stdin(Stdio::piped()).stdout(fs::File::create(path).unwrap()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(gzip.wait().unwrap().success());
}
