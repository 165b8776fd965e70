-- The database and its roles: the statements of docs/INSTALL.md, with the passwords of docker/secrets. PostgreSQL's
-- image runs this once, as the superuser, when it creates its volume.
\set ON_ERROR_STOP on
\set owner_password `cat /run/secrets/owner_password`
\set fedhis_password `cat /run/secrets/fedhis_password`
\set fedgate_password `cat /run/secrets/fedgate_password`
CREATE ROLE fedgate_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE fedhis LOGIN PASSWORD :'fedhis_password';
CREATE ROLE fedgate LOGIN PASSWORD :'fedgate_password';
-- For commands that change accounts, once it has a password. The service `owner` runs them as the owner.
CREATE ROLE fedgate_operator LOGIN;
CREATE DATABASE federation OWNER fedgate_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE federation FROM PUBLIC;
GRANT CONNECT ON DATABASE federation TO fedhis, fedgate, fedgate_operator;
